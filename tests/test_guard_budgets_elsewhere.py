"""Budgets of several processes: what others spent is learned from the tables."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import pytest
import stack
from budgeting import OPUS, check, refused
from folding import Fact, fact, fold, moment
from folding import given as given_events

import relight
from relight.engine.clock import ScriptedClock
from relight.engine.errors import Unreachable
from relight.engine.guard.budgets.budgets import Budgets
from relight.engine.guard.budgets.spent_elsewhere import SpentElsewhere
from relight.engine.guard.facts import Usage
from relight.engine.policies.budget import Amounts, Limit, Per, Window
from relight.engine.scope import Scope
from relight.engine.tables.partitions import Partitions
from relight.engine.tables.pools import PoolOptions, open_pool
from relight.engine.tables.queries import run
from relight.engine.tables.store import join_tables
from relight.events.decisions import DecisionOutcomeKnown, DecisionTaken, Outcome
from relight.projections.model_calls import Spent
from relight.projections.query import Row


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
