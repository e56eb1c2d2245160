"""When a process goes by itself: clocks that are ahead, rulings that it cannot follow, and NATS away."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import breaking
from breaking import POLICY, TENANTS, Process, assert_replayed, fleet
from stack import NOW, connected, nats_server, options, until

from relight.engine.clock import ScriptedClock
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.guard.breakers.breaker import CLOSED, Permit, Refused
from relight.engine.guard.breakers.breakers import Breakers
from relight.engine.guard.breakers.fleet import ANNOUNCED
from relight.engine.log.control import ControlLog, Tail
from relight.engine.policies.fleet_breaker import FleetState, State
from relight.engine.recorder.recorder import Recorder
from relight.events.breakers import BreakerHalfOpened
from relight.events.subjects import control_subject, token

nats = breaking.nats


async def test_an_expected_ruling_that_never_comes_lets_calls_pass_again_and_an_older_one_changes_nothing(
    nats: EmbeddedNats,
) -> None:
    async with fleet(nats, next(TENANTS), domains="A") as alone:
        [process] = alone.processes
        nothing = FleetState(service_name="crm")
        later = alone.clock.now() + timedelta(seconds=30)
        opened = replace(nothing, state=State.OPEN, next_retry_at=later, reason="a quorum")
        process.breaker.told(opened)
        assert isinstance(process.call(answered=True), Refused)
        process.breaker.told(nothing)
        assert process.call(answered=True) is CLOSED
        process.breaker.told(replace(opened, rev=3))
        process.breaker.told(replace(nothing, rev=2))
        assert isinstance(process.call(answered=True), Refused)


async def test_a_process_whose_clock_is_ahead_goes_by_itself_and_takes_no_probe_from_anybody(
    nats: EmbeddedNats,
) -> None:
    """Found: to it every deadline was over, and its lease, which lasted until tomorrow, stopped the whole fleet."""
    tenant = next(TENANTS)
    tomorrow = ScriptedClock(NOW + timedelta(days=1))
    async with fleet(nats, tenant) as all_, Recorder(options(nats, tenant=tenant), clock=tomorrow) as recorder:
        breakers = Breakers(recorder, POLICY)
        ahead = Process(recorder, breakers, breakers.of("crm"), tomorrow)
        await until(lambda: "ahead of the stream's" in str(breakers.health().failure), "it says so")
        await all_.opens()
        assert ahead.call(answered=True) is CLOSED
        all_.clock.advance(31)
        all_.processes[0].end(await all_.processes[0].leased(), answered=True)
        await all_.knows(lambda process: process.state is State.CLOSED, "the fleet's breaker is closed for everyone")
    assert await assert_replayed(nats, tenant) == ["breakers.opened", "breakers.half_opened", "breakers.closed"]


async def test_a_ruling_from_ahead_of_the_streams_clock_decides_nothing_and_the_next_one_follows_it(
    nats: EmbeddedNats,
) -> None:
    tenant = next(TENANTS)
    tomorrow = ScriptedClock(NOW + timedelta(days=1))

    async def lease(log: ControlLog) -> Tail:
        ruling = BreakerHalfOpened(
            service_name="crm",
            reason="its time has come",
            failure_count=1,
            opened_at=NOW,
            holder="tomorrow's",
            lease_until=tomorrow.now() + timedelta(seconds=20),
            probes=1,
            openings=1,
        )
        after = await log.tail(BreakerHalfOpened, tenant=tenant, entity="crm")
        return await log.append(ruling, after=after, tenant=tenant, policy_version="1")

    async with fleet(nats, tenant) as all_, Recorder(options(nats, tenant=tenant), clock=tomorrow) as recorder:
        await all_.opens()
        tail: Tail = await asyncio.wrap_future(recorder.in_loop(recorder.with_control(lease)))
        assert tail.event is not None
        async with connected(nats) as client:
            await client.publish(f"{ANNOUNCED}.{token(tenant)}", tail.event.model_dump_json(exclude_none=True).encode())
        all_.clock.advance(31)
        all_.processes[0].end(await all_.processes[0].leased(), answered=True)
        await all_.knows(lambda process: process.state is State.CLOSED, "the fleet's breaker is closed for everyone")
        async with fleet(nats, tenant, domains="A") as newcomers:
            assert newcomers.processes[0].state is State.CLOSED


async def test_after_a_ruling_that_nobody_can_read_each_process_goes_by_itself() -> None:
    """Found: a newer version's ruling kept a breaker open for ever, as nobody could lease its probes after it."""
    tenant = next(TENANTS)
    async with nats_server(sync_always=False) as nats, fleet(nats, tenant) as all_:
        await all_.opens()
        async with connected(nats) as client:
            await client.jetstream().publish(control_subject("breaker", tenant, "crm"), b"from a newer version")
        await all_.knows(lambda process: not process.breaker.linked, "it is seen")
        assert all(isinstance(process.call(answered=True), Refused) for process in all_.processes), "until its deadline"
        all_.clock.advance(31)
        assert all(isinstance(process.call(answered=True), Permit) for process in all_.processes)
        assert {process.state for process in all_.processes} == {State.CLOSED}
        async with fleet(nats, tenant, domains="A") as newcomers:
            newcomers.clock.advance(31)
            assert isinstance(newcomers.processes[0].call(answered=True), Permit)


async def test_while_nats_is_away_a_process_probes_by_itself_and_then_the_last_ruling_holds_again() -> None:
    tenant = next(TENANTS)
    async with nats_server() as nats, fleet(nats, tenant) as all_:
        await all_.opens()
        bystander, tripped = all_.processes[3], all_.processes[0]
        await nats.kill()
        await all_.knows(lambda process: process.breakers.health().failure is not None, "they notice")
        assert isinstance(bystander.call(answered=True), Refused), "until its deadline the ruling holds"
        all_.clock.advance(31)
        probe = bystander.breaker.permit(all_.clock.now_us())
        assert isinstance(probe, Permit)
        assert probe.probe
        assert isinstance(bystander.call(answered=True), Refused), "half-open by itself"
        bystander.end(probe, answered=True)
        assert bystander.call(answered=True) is CLOSED
        assert tripped.call(answered=False) is not CLOSED
        assert isinstance(tripped.call(answered=True), Refused), "its own probe failed"

        await nats.start()
        await all_.knows(lambda process: process.breakers.health().failure is None, "they are back")
        assert bystander.breaker.health() is not None, "the fleet has not closed it"
        bystander.end(await bystander.leased(), answered=True)
        await all_.knows(lambda process: process.breaker.health() is None, "now it has")
    # The server is gone, and with it the stream: that rulings replay is shown in test_guard_fleet.py.
