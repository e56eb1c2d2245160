"""Budgets: never above a limit by more than calls take beyond what was held for them."""

import asyncio
import json
import pickle
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import stack
from folding import Fact, fact, fold, moment
from folding import given as given_events
from hypothesis import given
from hypothesis import strategies as st

import relight
from relight.engine.clock import ScriptedClock
from relight.engine.errors import BudgetExceeded, DeadlineExceeded, SettingsError, Unreachable
from relight.engine.guard.budgets.budgets import Budgets, Held
from relight.engine.guard.budgets.estimates import estimated
from relight.engine.guard.budgets.spent_elsewhere import SpentElsewhere
from relight.engine.guard.facts import Dependency, Usage
from relight.engine.guard.routes.refusals import circuit_open
from relight.engine.http.guarded import problem_response
from relight.engine.policies.budget import Amounts, Limit, Per, Spending, Window
from relight.engine.scope import Scope
from relight.engine.tables.partitions import Partitions
from relight.engine.tables.pools import PoolOptions, open_pool
from relight.engine.tables.queries import run
from relight.engine.tables.store import join_tables
from relight.events.decisions import DecisionOutcomeKnown, DecisionTaken, Outcome
from relight.projections.model_calls import Spent
from relight.projections.query import Row

SECOND_US = 1_000_000
NOON_US = 1_767_268_800 * SECOND_US
OPUS = Dependency("anthropic", "global", "claude-opus-4-8")
REFUNDS = Scope(agent="refunds")


@dataclass
class Prices:
    """10 micro-dollars a token of the models it knows."""

    known: tuple[str, ...] = (OPUS.model,)

    def cost_microusd(self, model: str, usage: Usage, provider: str, region: str) -> int | None:
        return 10 * ((usage.input_tokens or 0) + (usage.output_tokens or 0)) if model in self.known else None


def check(budgets: Budgets, scope: Scope = REFUNDS, *, now_us: int = NOON_US, max_tokens: int = 100) -> Held:
    body = {"model": OPUS.model, "max_tokens": max_tokens, "messages": []}
    held = budgets.check(scope, now_us, tenant="acme", dependency=OPUS, body=body, decision="d-1")
    assert held is not None
    return held


def refused(
    budgets: Budgets, scope: Scope = REFUNDS, *, now_us: int = NOON_US, max_tokens: int = 100
) -> BudgetExceeded:
    with pytest.raises(BudgetExceeded) as raised:
        check(budgets, scope, now_us=now_us, max_tokens=max_tokens)
    return raised.value


# Windows, purely: calls come, hold something, end some time later having taken that or less, or more.


@dataclass(frozen=True)
class Ran:
    """A call: when it asked, what it held and took, and how long it ran."""

    after_s: float
    held: int
    share: float
    ran_s: float


RAN = st.builds(
    Ran,
    after_s=st.floats(0, 50),
    held=st.integers(0, 120),
    share=st.floats(0, 1.5),
    ran_s=st.floats(0, 100),
)


def play(limit: Limit, calls: list[Ran]) -> tuple[list[tuple[int, int]], int]:
    """What was spent when, and by how much the calls at hand at any one time went beyond what they held."""
    spending = Spending(limit)
    spent: list[tuple[int, int]] = []
    ends: list[tuple[int, Ran]] = []
    now_us, beyond = NOON_US, 0
    for call in [*calls, Ran(1_000, 0, 0, 0)]:
        now_us += round(call.after_s * SECOND_US)
        for end_us, ended in sorted((e for e in ends if e[0] <= now_us), key=lambda e: e[0]):
            took = round(ended.held * ended.share)
            spending.release(Amounts(ended.held))
            spending.spend(Amounts(took), end_us)
            spent.append((end_us, took))
            beyond += max(0, took - ended.held)
        ends = [e for e in ends if e[0] > now_us]
        asked = Amounts(call.held)
        if spending.short(asked, now_us) is None:
            spending.reserve(asked)
            ends.append((now_us + round(call.ran_s * SECOND_US), call))
        elif (free_us := spending.free_at_us(asked, "tokens", now_us)) is not None:
            assert free_us > now_us
    return spent, beyond


@given(st.lists(RAN, max_size=30))
def test_no_sliding_window_holds_more_than_its_limit_and_what_calls_took_beyond_their_hold(calls: list[Ran]) -> None:
    spent, beyond = play(Limit(tokens=300, per=Per.MINUTE), calls)
    for end_us, _ in spent:
        within = sum(took for at_us, took in spent if end_us - Per.MINUTE.us < at_us <= end_us)
        assert within <= 300 + beyond


@given(st.lists(RAN, max_size=30))
def test_no_full_minute_holds_more_than_its_limit_and_what_calls_took_beyond_their_hold(calls: list[Ran]) -> None:
    spent, beyond = play(Limit(tokens=300, per=Per.MINUTE, window=Window.FIXED), calls)
    for minute in {at_us // Per.MINUTE.us for at_us, _ in spent}:
        assert sum(took for at_us, took in spent if at_us // Per.MINUTE.us == minute) <= 300 + beyond


@given(st.lists(RAN, max_size=30))
def test_a_limit_in_all_is_kept_for_ever(calls: list[Ran]) -> None:
    spent, beyond = play(Limit(tokens=300), calls)
    assert sum(took for _, took in spent) <= 300 + beyond


@given(st.lists(st.tuples(st.integers(1, 40), st.floats(0, 30)), min_size=1, max_size=20), st.integers(1, 100))
def test_what_is_said_to_fit_then_does(steps: list[tuple[int, float]], wanted: int) -> None:
    for window in Window:
        spending = Spending(Limit(tokens=100, per=Per.MINUTE, window=window))
        now_us = NOON_US
        for tokens, after_s in steps:
            spending.spend(Amounts(tokens), now_us)
            now_us += round(after_s * SECOND_US)
        if spending.short(Amounts(wanted), now_us) is not None:
            free_us = spending.free_at_us(Amounts(wanted), "tokens", now_us)
            assert free_us is not None
            assert spending.short(Amounts(wanted), free_us - 1) is not None
            assert spending.short(Amounts(wanted), free_us) is None


def test_what_everybody_spent_counts_until_the_window_has_passed_and_ones_own_not_twice() -> None:
    spending = Spending(Limit(tokens=100, per=Per.MINUTE))
    spending.follow()
    spending.spend(Amounts(10), NOON_US)
    spending.spend(Amounts(5), NOON_US + 20 * SECOND_US)
    spending.known_until(Amounts(40), NOON_US + 10 * SECOND_US)  # 10 of them are ours
    assert spending.used(NOON_US + 21 * SECOND_US).tokens == 45
    spending.known_until(Amounts(50), NOON_US + 30 * SECOND_US)
    assert spending.used(NOON_US + 31 * SECOND_US).tokens == 50
    assert spending.used(NOON_US + 95 * SECOND_US).tokens == 0
    spending.known_until(Amounts(0), NOON_US + 100 * SECOND_US)
    spending.spend(Amounts(7), NOON_US + 100 * SECOND_US)
    assert spending.used(NOON_US + 101 * SECOND_US).tokens == 7


# Budgets of a process.


def test_each_agent_has_its_own_where_the_limit_says_so_and_all_share_one_where_it_does_not() -> None:
    budgets = Budgets([Limit(agent="*", attempts=2), Limit(tenant="acme", attempts=3)])
    a, b, nobody, other = Scope(agent="a"), Scope(agent="b"), Scope(), Scope(tenant="other")
    for scope in (a, a):
        check(budgets, scope).settle()
    assert "agent a: 2 of 2 attempts are used" in str(refused(budgets, a))
    check(budgets, b).settle()
    assert "tenant acme: 3 of 3 attempts are used" in str(refused(budgets, nobody))
    for scope in (other, other):
        check(budgets, scope).settle()
    assert "calls without agent: 2 of 2" in str(refused(budgets, other))


def test_a_call_that_no_limit_concerns_holds_nothing() -> None:
    def ask(budgets: Budgets) -> Held | None:
        return budgets.check(REFUNDS, NOON_US, tenant="acme", dependency=OPUS, body={})

    assert ask(Budgets([])) is None
    assert ask(Budgets([Limit(agent="someone else", tokens=0)])) is None


def test_what_a_call_may_take_is_held_and_what_it_took_is_spent() -> None:
    budgets = Budgets([Limit(agent="refunds", tokens=250)])
    first, second = check(budgets), check(budgets)
    error = refused(budgets)
    assert "0 of 250 tokens are used and 200 held by calls at hand, and this call may take 100" in str(error)
    first.spent(Usage(10, 20, 3, 4), OPUS, NOON_US)
    first.settle()
    first.settle()
    check(budgets).settle()
    second.settle()
    assert [(s.whose, s.used.tokens, s.reserved.tokens) for s in budgets.standings(NOON_US)] == [
        ("agent refunds", 37, 0)
    ]


def test_a_refusal_holds_nothing_anywhere() -> None:
    budgets = Budgets([Limit(tokens=1_000), Limit(agent="refunds", attempts=0)])
    refused(budgets)
    assert {standing.reserved for standing in budgets.standings(NOON_US)} == {Amounts()}
    assert {standing.used for standing in budgets.standings(NOON_US)} == {Amounts()}


def test_retries_count_as_attempts_and_what_failed_ones_took_counts_too() -> None:
    budgets = Budgets([Limit(attempts=2)])
    held = check(budgets)
    held.again(NOON_US)
    with pytest.raises(BudgetExceeded, match="2 of 2 attempts"):
        held.again(NOON_US)
    budgets = Budgets([Limit(tokens=150)])
    held = check(budgets)
    held.spent(Usage(30, 10), OPUS, NOON_US)
    held.again(NOON_US)
    held.spent(Usage(30, 10), OPUS, NOON_US)
    with pytest.raises(BudgetExceeded, match="80 of 150 tokens are used, and this call may take 100"):
        held.again(NOON_US)
    held.settle()
    assert budgets.standings(NOON_US)[0].reserved == Amounts()


def test_a_call_that_was_never_sent_counts_no_attempt() -> None:
    budgets = Budgets([Limit(attempts=1)])
    held = check(budgets)
    assert "0 of 1 attempts are used and 1 held by calls at hand" in str(refused(budgets))
    held.settle(sent=False)
    check(budgets).settle()
    assert "1 of 1 attempts are used" in str(refused(budgets))


def test_costs_follow_the_prices_and_unknown_ones_count_as_nothing_and_are_counted() -> None:
    budgets = Budgets([Limit(cost_microusd=2_500)], prices=Prices())
    held = check(budgets)
    held.spent(Usage(100, 100), OPUS, NOON_US)
    held.settle()
    assert "2,000 of 2,500 micro-dollars are used, and this call may take 1,000" in str(refused(budgets))
    other = Dependency("anthropic", "global", "unheard-of")
    check(budgets, max_tokens=20).spent(Usage(9_000, 9_000), other, NOON_US)
    check(budgets, max_tokens=20).spent(None, OPUS, NOON_US)
    assert (budgets.unpriced, budgets.uncounted) == (1, 1)


def test_a_limit_may_hold_less_for_a_call_than_it_may_take() -> None:
    budgets = Budgets([Limit(tokens=100, reserve_tokens=10)])
    held = [check(budgets, max_tokens=64_000) for _ in range(10)]
    assert refused(budgets, max_tokens=64_000).problem["reserved"] == 100
    held[0].spent(Usage(0, 64_000), OPUS, NOON_US)
    held[0].settle()
    assert budgets.standings(NOON_US)[0].used.tokens == 64_000


def test_a_refusal_says_what_is_used_of_what_and_when_it_is_free_again_and_survives_pickling() -> None:
    budgets = Budgets([Limit(agent="*", tokens=150, per=Per.HOUR)])
    held = check(budgets)
    held.spent(Usage(60, 40), OPUS, NOON_US)
    held.settle()
    error = refused(budgets, now_us=NOON_US + 60 * SECOND_US)
    assert (
        json.loads(json.dumps(error.problem))
        == error.problem
        == {
            "type": "/v1/problems/budget-exceeded",
            "title": "A limit on tokens, cost or attempts is reached",
            "status": 429,
            "detail": str(error),
            "instance": "urn:relight:decision:d-1",
            "retry_after_s": 3_600.0,
            "retry_at": "2026-01-01T13:01:00.000Z",
            "limit": {"agent": "*", "tokens": 150, "per": "hour", "window": "sliding"},
            "whose": "agent refunds",
            "kind": "tokens",
            "used": 100,
            "reserved": 0,
            "asked": 100,
        }
    )
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.problem) == (BudgetExceeded, str(error), error.problem)
    check(budgets, now_us=NOON_US + 3_660 * SECOND_US)
    assert "retry_at" not in refused(Budgets([Limit(tokens=50)])).problem


def test_threads_together_never_hold_more_than_there_is() -> None:
    budgets = Budgets([Limit(tokens=1_000), Limit(agent="*", attempts=700)])
    at_hand, most, lock = 0, 0, threading.Lock()

    def call(_: int) -> bool:
        nonlocal at_hand, most
        try:
            held = check(budgets)
        except BudgetExceeded:
            return False
        with lock:
            at_hand += 1
            most = max(most, at_hand)
        held.spent(Usage(0, 1), OPUS, NOON_US)
        with lock:
            at_hand -= 1
        held.settle()
        return True

    with ThreadPoolExecutor(16) as threads:
        made = sum(threads.map(call, range(2_000)))
    assert most <= 10
    assert made <= 700
    (tokens, attempts) = budgets.standings(NOON_US)
    assert (tokens.used.tokens, tokens.reserved, attempts.used.attempts) == (made, Amounts(), made)


async def test_a_hundred_tasks_at_once_cannot_overrun_a_limit_together() -> None:
    budgets = Budgets([Limit(task="t-1", tokens=5_000)])
    took = 0

    async def call() -> None:
        nonlocal took
        held = check(budgets, Scope(task="t-1"))
        await asyncio.sleep(0)
        held.spent(Usage(0, 100), OPUS, NOON_US)
        took += 100
        held.settle()

    outcomes = await asyncio.gather(*(call() for _ in range(100)), return_exceptions=True)
    assert took == 5_000
    assert sum(isinstance(outcome, BudgetExceeded) for outcome in outcomes) == 50


def test_a_prompt_is_estimated_by_its_text_and_attachments_by_their_number() -> None:
    def prompt(content: Any, **more: Any) -> int | None:
        return estimated({"max_tokens": 1, "messages": [{"role": "user", "content": content}], **more}).input_tokens

    assert 1_000 <= (prompt("word " * 600) or 0) <= 1_010
    assert (prompt("字" * 600) or 0) >= 600
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 900_000}}
    assert 1_600 <= (prompt([image]) or 0) <= 1_700
    assert (prompt("x", tools=[{"name": "t", "description": "d " * 300}]) or 0) > 200
    assert estimated({"messages": []}).output_tokens == 0


def test_the_end_of_a_call_waits_for_no_lock_and_counts_before_anybody_counts_again() -> None:
    budgets = Budgets([Limit(tokens=100)])
    held = check(budgets)
    with budgets._lock:  # as where the garbage collector tells of a stream that was dropped, in the middle of counting
        held.spent(Usage(0, 30), OPUS, NOON_US)
        held.settle()
    check(budgets, max_tokens=70)
    assert budgets.standings(NOON_US)[0].used.tokens == 30


# What other processes spent.


def ended(number: int, tick: int, tokens: int, *, agent: str | None = "refunds", tenant: str = "acme") -> list[Fact]:
    decision = f"call-{number}"
    taken = DecisionTaken(decision=decision, decision_type="agent_call", agent=agent, task="t-1", provider="anthropic")
    known = DecisionOutcomeKnown(
        decision=decision, outcome=Outcome.SUCCESS, input_tokens=tokens, output_tokens=1, cost_microusd=5 * tokens
    )
    return [fact(taken, tick=tick, tenant=tenant), fact(known, tick=tick + 1, tenant=tenant)]


def not_sent(number: int, tick: int) -> list[Fact]:
    taken, _ = ended(number, tick, 0)
    refused_call = DecisionOutcomeKnown(
        decision=f"call-{number}", outcome=Outcome.FAILURE, error_class="budget_exceeded", attempts=0
    )
    return [taken, fact(refused_call, tick=tick + 1)]


async def tell(database: str, *facts: Fact) -> None:
    """Folds them into the tables."""
    connection = await asyncpg.connect(database, server_settings={"role": "relight_projector"})
    folded = fold(given_events(*facts).events)
    await Partitions().ensure(connection, folded)
    async with connection.transaction():
        await join_tables(connection, folded)
    await connection.close()


async def test_what_other_processes_spent_is_learned_from_the_tables(database: str) -> None:
    clock = ScriptedClock(moment(1_000))
    limits = [
        Limit(agent="*", tokens=1_000, per=Per.HOUR, window=Window.FIXED),
        Limit(task="*", cost_microusd=10_000_000),
        Limit(tenant="*", agent="*", attempts=100, per=Per.MINUTE),
    ]
    budgets = Budgets(limits)
    scope = Scope(agent="refunds", task="t-1")

    def used() -> list[Amounts]:
        return [standing.used for standing in budgets.standings(clock.now_us())]

    async with await open_pool(database, PoolOptions(size=2)) as pool:

        async def ask(name: str, *, tenant: str, **arguments: object) -> Sequence[Row]:
            return await run(pool, name, tenant=tenant, arguments=arguments)

        elsewhere = SpentElsewhere(budgets, ask, clock=clock, behind_s=10)
        held = check(budgets, scope, now_us=clock.now_us(), max_tokens=0)
        held.settle()
        await tell(
            database,
            *ended(1, 100, 200),
            *ended(2, 960, 300),
            *ended(3, 990, 9_000),  # too near: it may not all be there yet
            *ended(4, 970, 7_000, agent="other"),
            *ended(5, 970, 7_000, tenant="other"),
            *not_sent(8, 970),
        )
        await elsewhere.refresh()
        by_hour, by_task, by_minute = used()
        assert (by_hour.tokens, by_task.cost_microusd, by_minute.attempts) == (502, 37_500, 2)
        held.spent(Usage(50, 50), OPUS, clock.now_us())
        assert used()[0].tokens == 602
        clock.advance(100)
        # Its own are in the tables by now, and do not count twice; those that ended since do.
        await tell(database, *ended(6, 999, 99), *ended(7, 1_080, 20))
        await elsewhere.refresh()
        by_hour, by_task, by_minute = used()
        assert (by_hour.tokens, by_task.cost_microusd, by_minute.attempts) == (502 + 9_001 + 100 + 21, 83_095, 1)
        assert "9,624 of 1,000 tokens per hour" in str(refused(budgets, scope, now_us=clock.now_us()))
        clock.advance(3_600)
        assert used()[0].tokens == 0
        await elsewhere.refresh()
        check(budgets, scope, now_us=clock.now_us())


async def test_a_count_that_is_begun_is_asked_for_at_once_and_a_database_that_is_away_is_asked_again() -> None:
    clock = ScriptedClock(moment(1_000))
    budgets = Budgets([Limit(agent="*", tokens=1_000)])
    asked: list[object] = []

    async def ask(name: str, *, agent: str, **_: object) -> Sequence[Row]:
        asked.append(agent)
        if len(asked) == 1:
            raise Unreachable("PostgreSQL went away")
        return [
            Spent(tenant="acme", calls=1, input_tokens=999, output_tokens=0, cost_microusd=0, unpriced=0, event_id="")
        ]

    elsewhere = SpentElsewhere(budgets, ask, clock=clock, every_s=3_600)
    running = asyncio.create_task(elsewhere.run())
    check(budgets, Scope(agent="a"), now_us=clock.now_us(), max_tokens=1).settle()
    await stack.until(lambda: asked == ["a"])
    check(budgets, Scope(agent="b"), now_us=clock.now_us(), max_tokens=1).settle()
    await stack.until(lambda: len(asked) == 3)
    await stack.until(lambda: len(budgets.standings(clock.now_us())) == 2)
    running.cancel()
    assert elsewhere.failures == 1
    assert "999 of 1,000 tokens" in str(refused(budgets, Scope(agent="a"), now_us=clock.now_us()))


# Limits from a file.


def test_limits_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "budgets.toml"
    path.write_text(
        '[[limit]]\nagent = "*"\ntokens = 200_000\nper = "hour"\n[[limit]]\ntenant = "acme"\nattempts = 9\n'
    )
    assert Budgets.load(path).limits == (
        Limit(agent="*", tokens=200_000, per=Per.HOUR),
        Limit(tenant="acme", attempts=9),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no [[limit]]"),
        ("limit = 3", "limit"),
        ('[[limit]]\nagent = "a"', "limit.1: a limit says how many tokens, cost_microusd or attempts"),
        ("[[limit]]\ntoken = 3", "limit.1.token: Extra inputs are not permitted; a limit has tenant, agent, task"),
        ('[[limit]]\ntokens = 3\nper = "week"', "limit.1.per: Input should be 'minute', 'hour' or 'day'"),
        ("[[limit]]\ntokens = -3", "limit.1.tokens"),
        ("[[limit", "is no TOML"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "budgets.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as raised:
        Budgets.load(path)
    assert said in str(raised.value)
    with pytest.raises(SettingsError, match="cannot be read"):
        Budgets.load(tmp_path / "none.toml")


def test_a_refusal_is_answered_over_http_as_a_problem_that_says_when_to_come_back() -> None:
    budgets = Budgets([Limit(attempts=1, per=Per.MINUTE, window=Window.FIXED)])
    check(budgets).settle()
    answer = problem_response(refused(budgets, now_us=NOON_US + 500_000))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    assert answer.media_type == "application/problem+json"
    assert json.loads(bytes(answer.body))["kind"] == "attempts"
    answer = problem_response(circuit_open([], now_us=NOON_US))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    answer = problem_response(DeadlineExceeded("too late"))
    assert (answer.status_code, json.loads(bytes(answer.body))["detail"]) == (504, "too late")


def test_limits_that_are_shared_are_learned_beside_whoever_opened_them(
    shared_database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "budgets.toml"
    path.write_text("[[limit]]\nattempts = 1\n")
    monkeypatch.setenv("RELIGHT_NATS_URL", "nats://127.0.0.1:1")
    monkeypatch.setenv("RELIGHT_DATABASE_URL", shared_database)
    with relight.open_sync(home=tmp_path, spool=False) as r:
        budgets = r.budgets(path)
        now_us = r.recorder.clock.now_us()
        check(budgets, now_us=now_us).settle()
        refused(budgets, now_us=now_us)
