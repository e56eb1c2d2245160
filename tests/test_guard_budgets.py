"""Budgets of a process: never above a limit by more than calls take beyond what was held for them."""

import asyncio
import json
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from budgeting import NOON_US, OPUS, REFUNDS, SECOND_US, Prices, check, refused

from relight.engine.errors import BudgetExceeded
from relight.engine.guard.budgets.budgets import Budgets, Held
from relight.engine.guard.budgets.estimates import estimated
from relight.engine.guard.facts import Dependency, Usage
from relight.engine.policies.budget import Amounts, Limit, Per
from relight.engine.scope import Scope


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
