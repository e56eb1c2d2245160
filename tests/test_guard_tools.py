"""Tools behind breakers: functions, coroutine functions and blocks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count
from typing import Any

import breaking
import pytest
from breaking import POLICY, TENANTS, Process, events_of, fleet
from guarding import idle_recorder
from stack import NOW, options

from relight.engine.clock import ScriptedClock
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.errors import CircuitOpen
from relight.engine.guard.breakers.breaker import CLOSED, Refused
from relight.engine.guard.breakers.breakers import Breakers
from relight.engine.guard.breakers.tool import ToolBreaker
from relight.engine.guard.calls.deadlines import deadline
from relight.engine.guard.routes.capacity import waiting_for_capacity
from relight.engine.policies.breaker import BreakerPolicy
from relight.engine.policies.fleet_breaker import State
from relight.engine.recorder.recorder import Recorder
from relight.engine.runtime import Relight
from relight.engine.sync import SyncRelight

nats = breaking.nats


@asynccontextmanager
async def tool(nats: EmbeddedNats, **how: Any) -> AsyncIterator[tuple[ToolBreaker, Process, str]]:
    tenant = next(TENANTS)
    async with fleet(nats, tenant, domains="A") as alone:
        yield ToolBreaker(alone.processes[0].breakers, "crm", **how), alone.processes[0], tenant


async def test_a_coroutine_function_behind_a_breaker_is_refused_with_a_problem(nats: EmbeddedNats) -> None:
    async with tool(nats) as (crm, process, tenant):
        calls = count()

        @crm
        async def look_up(order: int, *, fails: bool) -> str:
            """An order's status."""
            next(calls)
            if fails:
                raise ConnectionError("no route")
            return f"order {order}"

        assert look_up.__doc__ == "An order's status."
        assert await look_up(1, fails=False) == "order 1"
        for _ in range(2):
            with pytest.raises(ConnectionError, match="no route"):
                await look_up(1, fails=True)
        with pytest.raises(CircuitOpen, match="breaker crm lets no call pass before") as refused:
            await look_up(1, fails=False)
        assert next(calls) == 3, "it was not called"
        problem = refused.value.problem
        assert (problem["type"], problem["status"]) == ("/v1/problems/circuit-open", 503)
        assert (problem["breaker"], problem["refused"]) == ("crm", "2 failures in a row")
        assert problem["retry_after_s"] == 20
        assert refused.value.retry_at == process.clock.now() + timedelta(seconds=20)
    told = [(event["type"], event["data"].get("error_class")) for event in await events_of(nats, tenant)]
    assert told == [
        ("breakers.succeeded", None),
        ("breakers.failed", "ConnectionError"),
        ("breakers.tripped", None),
        ("breakers.failed", "ConnectionError"),
    ]


async def test_relight_gives_breakers_that_all_of_the_process_share(nats: EmbeddedNats) -> None:
    tenant, policy = next(TENANTS), BreakerPolicy(consecutive_failures=1)
    async with Recorder(options(nats, tenant=tenant)) as recorder:
        r = Relight(recorder, None, region="eu", tenant=tenant)  # type: ignore[arg-type]  # nothing is queried

        @r.breaker("crm", policy=policy)
        async def look_up() -> None:
            raise OSError

        with pytest.raises(OSError):
            await look_up()
        plain = SyncRelight(r, None)  # type: ignore[arg-type]  # nothing is waited for

        @plain.breaker("crm")
        def look_up_plainly() -> None:
            raise AssertionError("it is not called")

        with pytest.raises(CircuitOpen):
            look_up_plainly()
        with pytest.raises(CircuitOpen), plain.breaker("crm"):
            raise AssertionError("not entered")
        [health] = plain.breakers.health().breakers
        assert (health.name, health.refused_calls) == ("crm", 2)
        assert any(said.startswith("breaker crm is open until") for said in plain.health().warnings)


async def test_plain_functions_and_blocks_with_and_without_a_loop(nats: EmbeddedNats) -> None:
    async with tool(nats) as (crm, process, _):

        @crm
        def look_up() -> int:
            return 42

        assert look_up() == 42
        with pytest.raises(OSError), crm:
            raise OSError
        with pytest.raises(OSError):
            async with crm:
                raise OSError
        for block in (look_up, lambda: crm.__enter__()):
            with pytest.raises(CircuitOpen):
                block()
        assert process.breaker.refused_calls == 2


async def test_many_use_one_block_at_once_and_within_each_other(nats: EmbeddedNats) -> None:
    async with tool(nats, policy=None) as (crm, process, _):
        process.trip()
        process.clock.advance(20)

        async def use(fails: bool) -> None:
            async with crm:
                await asyncio.sleep(0.01)
                if fails:
                    raise OSError

        outcomes = await asyncio.gather(*(use(fails=n == 0) for n in range(5)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [OSError, *[CircuitOpen] * 4], "one probe, and it failed"
        process.clock.advance(40)
        with crm:
            assert isinstance(process.breaker.permit(process.clock.now_us()), Refused)
        with crm, crm:
            pass


async def test_only_what_counts_says_that_the_dependency_failed(nats: EmbeddedNats) -> None:
    async with tool(nats, counts=(OSError, ValueError), ignores=FileNotFoundError) as (crm, process, _):
        for error in (KeyError, FileNotFoundError, asyncio.CancelledError, KeyboardInterrupt) * 3:
            with pytest.raises(error):
                async with crm:
                    raise error
        assert process.call(answered=True) is CLOSED
        for _ in range(2):
            with pytest.raises(ValueError), crm:
                raise ValueError
        assert process.state is State.OPEN


async def test_a_generator_is_refused_as_its_call_ends_before_its_work(nats: EmbeddedNats) -> None:
    async with tool(nats) as (crm, _, _):
        with pytest.raises(TypeError, match="put `with` inside"):

            @crm
            def numbers() -> Any:
                yield 1


async def test_a_tool_waits_for_the_fleets_probe_and_for_capacity_where_it_may(nats: EmbeddedNats) -> None:
    async with fleet(nats, next(TENANTS)) as all_:
        await all_.opens()
        crm = ToolBreaker(all_.processes[3].breakers, "crm")
        all_.clock.advance(31)

        async def moves_on() -> None:
            for _ in range(100):
                all_.clock.advance(0.001)
                await asyncio.sleep(0.002)

        moving = asyncio.create_task(moves_on())
        async with crm:  # no `CircuitOpen`, though the probes had to be leased
            pass
        await moving
        await all_.knows(lambda process: process.breaker.health() is None, "closed")
        assert all_.processes[3].breaker.refused_calls == 0

        await all_.opens()
        with waiting_for_capacity(100):
            entering = asyncio.create_task(crm.__aenter__())
            await asyncio.sleep(0)
        all_.clock.advance(31)
        await entering


async def test_a_tool_may_wait_for_ever_and_a_deadline_ends_the_wait(nats: EmbeddedNats) -> None:
    """Found: infinity was an OverflowError, and the wait went on past the deadline."""
    async with fleet(nats, next(TENANTS), domains="A") as alone:
        [process] = alone.processes
        process.trip()
        crm = ToolBreaker(process.breakers, "crm")
        with waiting_for_capacity(float("inf")), deadline(5, clock=alone.clock):
            with pytest.raises(CircuitOpen):
                await crm.__aenter__()
        with waiting_for_capacity(float("inf")):
            entering = asyncio.create_task(crm.__aenter__())
            await asyncio.sleep(0)
        alone.clock.advance(21)
        await entering


async def test_a_block_that_is_left_in_another_context_gives_its_probe_back(nats: EmbeddedNats) -> None:
    """Found: leaving raised RuntimeError, and the only probe was lost with it."""
    async with tool(nats) as (crm, process, _):

        async def lines() -> AsyncIterator[int]:
            async with crm:
                yield 1
                yield 2

        async def begin(reading: AsyncIterator[int]) -> int:
            return await anext(reading)

        async def end(reading: AsyncIterator[int]) -> None:
            assert [line async for line in reading] == [2]

        process.trip()
        process.clock.advance(21)
        reading = lines()
        assert await asyncio.create_task(begin(reading)) == 1
        assert process.state is State.HALF_OPEN
        await asyncio.create_task(end(reading))
        assert process.state is State.CLOSED, "the probe was answered"

        first, second = lines(), lines()
        async with crm:  # what is left here of others' does not stand in its own way
            for reading in (first, second):
                await asyncio.create_task(begin(reading))
            await asyncio.create_task(end(second))
            await end(first)
        async with crm:
            pass
        assert not crm._open
        with pytest.raises(RuntimeError, match="breaker crm is left more often than it was entered"):
            crm.__exit__(None, None, None)


def test_blocks_that_overlap_in_one_context_are_left_in_any_order() -> None:
    with idle_recorder(ScriptedClock(NOW)) as recorder:
        breakers = Breakers(recorder, POLICY)
        crm, search = ToolBreaker(breakers, "crm"), ToolBreaker(breakers, "search")
        for tool_ in (crm, search):
            tool_.__enter__()
        for tool_ in (crm, search):
            tool_.__exit__(None, None, None)
        assert not crm._open
        assert not search._open
