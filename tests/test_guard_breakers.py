"""Breakers on a real NATS server: what a process does, what a fleet agrees on, what holds while NATS is away."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
import pytest_asyncio
from guarding import idle_recorder
from stack import NOW, bodies, connected, nats_server, on_stream, options, until

from relight.engine import scope
from relight.engine.clock import ScriptedClock
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.errors import CircuitOpen
from relight.engine.guard.breakers.breaker import CLOSED, Breaker, Permit, Refused
from relight.engine.guard.breakers.breakers import Breakers
from relight.engine.guard.breakers.fleet import ANNOUNCED, policy_version
from relight.engine.guard.breakers.tool import ToolBreaker
from relight.engine.guard.calls.deadlines import deadline
from relight.engine.guard.routes.capacity import waiting_for_capacity
from relight.engine.log.control import ControlLog, Tail
from relight.engine.log.topology import connect
from relight.engine.policies.breaker import BreakerPolicy
from relight.engine.policies.fleet_breaker import FleetPolicy, FleetState, State, ruling_of
from relight.engine.recorder.recorder import Recorder
from relight.engine.runtime import Relight
from relight.engine.sync import SyncRelight
from relight.events.breakers import BreakerHalfOpened
from relight.events.catalog import decode
from relight.events.errors import InvalidEvent
from relight.events.subjects import control_subject, token

FLEET = FleetPolicy(open_s=30, lease_s=20)
POLICY = BreakerPolicy(consecutive_failures=2, open_s=20, jitter=0, fleet=FLEET)
TENANTS = (f"tenant-{n}" for n in count())
NOWHERE = "nats://127.0.0.1:9"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nats() -> AsyncIterator[EmbeddedNats]:
    async with nats_server(sync_always=False) as server:
        yield server


@dataclass
class Process:
    """One of a fleet, as far as its breakers are concerned."""

    recorder: Recorder
    breakers: Breakers
    breaker: Breaker
    clock: ScriptedClock

    def call(self, *, answered: bool) -> Permit | Refused:
        permit = self.breaker.permit(self.clock.now_us())
        if not isinstance(permit, Refused):
            self.end(permit, answered=answered)
        return permit

    def end(self, permit: Permit, *, answered: bool) -> None:
        if answered:
            self.breaker.succeeded(permit, 1_000)
        else:
            self.breaker.failed(permit, "timeout")

    def trip(self) -> None:
        for _ in range(2):
            self.call(answered=False)

    @property
    def state(self) -> State:
        """What it does with a call, and who ruled so."""
        health = self.breaker.health()
        return State.CLOSED if health is None else health.state

    def is_open_by_fleet(self) -> bool:
        health = self.breaker.health()
        return health is not None and health.fleet and health.state is State.OPEN

    async def leased(self) -> Permit:
        """Asks until the fleet's probes are this process's."""

        def ask() -> Permit | None:
            permit = self.breaker.permit(self.clock.now_us())
            return None if isinstance(permit, Refused) else permit

        permit: Permit = await until(ask, "the probes are leased")
        return permit


@dataclass
class Fleet:
    """Processes of one tenant, with one clock that the test moves."""

    clock: ScriptedClock
    processes: list[Process]

    async def knows(self, condition: Callable[[Process], bool], what: str) -> None:
        await until(lambda: all(condition(process) for process in self.processes), what)

    async def opens(self) -> None:
        """By a ruling that all of them know; each refuses calls before, while it expects the ruling."""
        before = {id(process): process.breaker.rev for process in self.processes}
        for process in self.processes[:3]:
            process.trip()
        await self.knows(Process.is_open_by_fleet, "the fleet's breaker is open for everyone")
        await self.knows(lambda process: process.breaker.rev > before[id(process)], "everyone has the ruling")


@asynccontextmanager
async def fleet(
    url_of: EmbeddedNats, tenant: str, *, domains: str = "ABAB", policy: BreakerPolicy = POLICY
) -> AsyncIterator[Fleet]:
    clock = ScriptedClock(NOW - timedelta(seconds=600))
    async with AsyncExitStack() as opened:
        processes = []
        for domain in domains:
            given = options(url_of, tenant=tenant, fault_domain=domain)
            recorder = await opened.enter_async_context(Recorder(given, clock=clock))
            breakers = Breakers(recorder, policy)
            processes.append(Process(recorder, breakers, breakers.of("crm"), clock))
        found = Fleet(clock, processes)
        await found.knows(lambda process: process.breakers.health().failure is None, "rulings arrive")
        yield found


async def events_of(nats: EmbeddedNats, tenant: str, type: str = "breakers.") -> list[dict[str, Any]]:
    async with connected(nats) as client:
        return [b for b in bodies(await on_stream(client)) if b["tenant"] == tenant and b["type"].startswith(type)]


async def assert_replayed(nats: EmbeddedNats, tenant: str) -> list[str]:
    """The decider makes the same rulings of the events on the stream; gives their types."""
    async with connected(nats) as client:
        messages = [(m.seq, decode(m.body)) for m in await on_stream(client)]
    ours = [(seq, event) for seq, event in messages if event.tenant == tenant and event.type.startswith("breakers.")]
    rulings = [event for _, event in ours if event.rev is not None]
    for ruling in rulings:
        seen = [event for seq, event in ours if seq <= (ruling.observedseq or 0)]
        assert ruling_of(seen, ruling, FLEET) == ruling.data
        assert ruling.policyversion == policy_version(FLEET)
    return [ruling.type for ruling in rulings]


# One process


async def test_a_process_trips_at_once_probes_after_its_time_and_records_both(nats: EmbeddedNats) -> None:
    tenant = next(TENANTS)
    async with fleet(nats, tenant, domains="A") as alone:
        [process] = alone.processes
        assert process.call(answered=True) is CLOSED
        process.trip()
        refused = process.call(answered=True)
        assert isinstance(refused, Refused)
        assert (refused.reason, refused.fleet) == ("2 failures in a row", False)
        assert refused.retry_at_us == alone.clock.now_us() + 20_000_000
        [health] = process.breakers.health().breakers
        assert (health.name, health.state, health.refused_calls) == ("crm", State.OPEN, 1)
        assert health.until == alone.clock.now() + timedelta(seconds=20)

        alone.clock.advance(20)
        probe = process.breaker.permit(alone.clock.now_us())
        assert isinstance(probe, Permit)
        assert probe.probe
        assert isinstance(process.call(answered=True), Refused), "one probe at a time"
        process.end(probe, answered=True)
        assert process.call(answered=True) is CLOSED
        assert process.breakers.health().breakers == ()
        assert process.breakers.health().refused_calls == 2
        name, domain = process.breakers.process, process.breakers.fault_domain
    tripped, reset = await events_of(nats, tenant)
    assert (tripped["type"], tripped["data"]["reason"]) == ("breakers.tripped", "2 failures in a row")
    assert tripped["data"]["failure_count"] == 2
    assert (reset["type"], reset["data"]["reason"]) == ("breakers.reset", "the probe was answered")
    for event in (tripped, reset):
        assert (event["data"]["process"], event["data"]["fault_domain"]) == (name, domain) == (name, "A")


async def test_a_call_that_tells_nothing_neither_trips_nor_uses_up_a_probe(nats: EmbeddedNats) -> None:
    async with fleet(nats, next(TENANTS), domains="A") as alone:
        [process] = alone.processes
        for _ in range(10):
            process.breaker.released(CLOSED)
        process.trip()
        alone.clock.advance(20)
        first = process.breaker.permit(alone.clock.now_us())
        assert isinstance(first, Permit)
        process.breaker.released(first)
        assert isinstance(process.breaker.permit(alone.clock.now_us()), Permit)


async def test_threads_share_the_probes_and_no_more_than_those_pass(nats: EmbeddedNats) -> None:
    policy = POLICY.model_copy(update={"probes": 3, "successes": 3})
    async with fleet(nats, next(TENANTS), domains="A", policy=policy) as alone:
        [process] = alone.processes
        process.trip()
        alone.clock.advance(20)
        answers: list[Permit | Refused] = []
        start = threading.Barrier(8)

        def ask() -> None:
            start.wait()
            answers.extend(process.breaker.permit(alone.clock.now_us()) for _ in range(50))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        await asyncio.to_thread(lambda: [thread.join() for thread in threads])
        permits = [answer for answer in answers if isinstance(answer, Permit)]
        assert len(permits) == 3
        assert process.breaker.refused_calls == 397


async def test_breakers_of_one_recorder_are_the_same_for_all_that_is_guarded(nats: EmbeddedNats) -> None:
    async with Recorder(options(nats, tenant=next(TENANTS))) as recorder:
        breakers = Breakers.beside(recorder)
        assert Breakers.beside(recorder) is breakers
        assert breakers.fault_domain == socket.gethostname(), "where nothing else was said"
        assert breakers.of("crm") is breakers.of("crm")
        with pytest.raises(InvalidEvent, match="choose another name"):
            breakers.of("")


async def test_votes_are_the_recorders_tenants_whoever_made_the_call(nats: EmbeddedNats) -> None:
    tenant = next(TENANTS)
    async with fleet(nats, tenant, domains="A") as alone:
        with scope.entered(tenant="somebody", correlation="run-1"):
            alone.processes[0].trip()
    [tripped] = await events_of(nats, tenant, "breakers.tripped")
    assert tripped["correlationid"] == "run-1"


# A fleet


async def test_a_quorum_opens_it_for_everyone_and_an_answered_probe_closes_it_for_everyone(nats: EmbeddedNats) -> None:
    tenant = next(TENANTS)
    async with fleet(nats, tenant) as all_:
        bystander = all_.processes[3]
        await all_.opens()
        refused = bystander.call(answered=True)
        assert isinstance(refused, Refused)
        assert refused.fleet
        assert refused.reason == "3 processes in 2 fault domains tripped"

        all_.clock.advance(31)
        probe = await bystander.leased()
        others = [process.call(answered=True) for process in all_.processes]
        assert all(isinstance(answer, Refused) for answer in others), "its one probe is out"
        bystander.end(probe, answered=True)
        await all_.knows(lambda process: process.call(answered=True) is CLOSED, "calls pass everywhere")
        voters = {process.breakers.process for process in all_.processes[:3]}
    opened, half_opened, closed = [e for e in await events_of(nats, tenant) if e.get("rev")]
    assert set(opened["data"]["processes"]) == voters
    assert opened["data"]["fault_domains"] == ["A", "B"]
    assert half_opened["data"]["holder"] == bystander.breakers.process
    assert closed["type"] == "breakers.closed"
    votes = {event["id"] for event in await events_of(nats, tenant, "breakers.tripped")}
    assert opened["causationid"] in votes
    resets = [event["data"]["process"] for event in await events_of(nats, tenant, "breakers.reset")]
    assert sorted(resets) == sorted([bystander.breakers.process, *voters])
    assert await assert_replayed(nats, tenant) == ["breakers.opened", "breakers.half_opened", "breakers.closed"]


async def test_a_probe_that_fails_opens_it_for_longer(nats: EmbeddedNats) -> None:
    tenant = next(TENANTS)
    async with fleet(nats, tenant) as all_:
        await all_.opens()
        for lasts_s in (60, 120):
            all_.clock.advance(lasts_s / 2 + 1)
            holder = all_.processes[3] if lasts_s == 60 else all_.processes[0]
            holder.end(await holder.leased(), answered=False)
            until_ = all_.clock.now() + timedelta(seconds=lasts_s)

            def is_open_again(process: Process, until_: Any = until_) -> bool:
                health = process.breaker.health()
                return process.is_open_by_fleet() and health is not None and health.until == until_

            await all_.knows(is_open_again, f"open for {lasts_s} s")
    rulings = await assert_replayed(nats, tenant)
    assert rulings == ["breakers.opened", *["breakers.half_opened", "breakers.opened"] * 2]


async def test_of_many_that_would_probe_one_gets_the_lease_and_an_expired_one_is_taken_over(
    nats: EmbeddedNats,
) -> None:
    tenant = next(TENANTS)
    async with fleet(nats, tenant) as all_:
        await all_.opens()
        all_.clock.advance(31)
        permits: list[tuple[Process, Permit]] = []

        def ask_all() -> None:
            for process in all_.processes:
                permit = process.breaker.permit(all_.clock.now_us())
                if isinstance(permit, Permit):
                    permits.append((process, permit))

        def one_asked() -> bool:
            ask_all()
            return bool(permits)

        await until(one_asked, "one of them got the probe")
        for _ in range(20):
            ask_all()
            await asyncio.sleep(0.01)
        assert len(permits) == 1
        [(silent, first)] = permits

        all_.clock.advance(21)
        others = [process for process in all_.processes if process is not silent]
        second = await others[0].leased()
        silent.end(first, answered=False)  # its lease is over: it answers for nothing but itself
        others[0].end(second, answered=True)
        await all_.knows(lambda process: process.breaker.health() is None or process is silent, "closed")
    assert await assert_replayed(nats, tenant) == [
        "breakers.opened",
        "breakers.half_opened",
        "breakers.half_opened",
        "breakers.closed",
    ]


@pytest.mark.parametrize("domains", ["ABCD", "AAAA"])
async def test_a_faulty_process_or_a_faulty_domain_opens_only_itself(nats: EmbeddedNats, domains: str) -> None:
    tenant = next(TENANTS)
    async with fleet(nats, tenant, domains=domains + "B") as all_:
        faulty = all_.processes[:1] if domains == "ABCD" else all_.processes[:4]
        sound = [process for process in all_.processes if process not in faulty]
        for process in faulty:
            process.trip()
        for process in all_.processes:  # what anybody would have ruled, all would have seen before this
            process.recorder.health()
        async with connected(nats) as client:
            await until(lambda: _voted(client, tenant, len(faulty)), "the votes stand on the stream")
        for _ in range(3):
            all_.clock.advance(5)
            assert all(process.call(answered=True) is CLOSED for process in sound)
            assert all(isinstance(process.call(answered=True), Refused) for process in faulty)
            await asyncio.sleep(0.1)  # longer than others leave a ruling to whom it follows from
    assert [event for event in await events_of(nats, tenant) if event.get("rev")] == []


async def _voted(client: Any, tenant: str, votes: int) -> bool:
    found = bodies(await on_stream(client))
    return sum(body["tenant"] == tenant and body["type"] == "breakers.tripped" for body in found) == votes


async def test_a_newcomer_learns_what_holds(nats: EmbeddedNats) -> None:
    tenant = next(TENANTS)
    async with fleet(nats, tenant) as all_:
        await all_.opens()
        given = options(nats, tenant=tenant, fault_domain="C")
        async with Recorder(given, clock=all_.clock) as recorder:
            breakers = Breakers(recorder, POLICY)
            newcomer = Process(recorder, breakers, breakers.of("crm"), all_.clock)
            await until(newcomer.is_open_by_fleet, "it is open for who came later")
            other = breakers.of("erp")
            await until(lambda: other.permit(all_.clock.now_us()) is CLOSED, "others are not")


async def test_votes_that_came_before_a_process_count_with_it(nats: EmbeddedNats) -> None:
    tenant = next(TENANTS)
    async with fleet(nats, tenant, domains="AB") as two:
        for process in two.processes:
            process.trip()
        given = options(nats, tenant=tenant, fault_domain="C")
        async with connected(nats) as client, Recorder(given, clock=two.clock) as recorder:
            await until(lambda: _voted(client, tenant, 2), "both stand on the stream")
            breakers = Breakers(recorder, POLICY)
            third = Process(recorder, breakers, breakers.of("crm"), two.clock)
            third.trip()
            await until(third.is_open_by_fleet, "three make a quorum")
            await until(lambda: third.breaker.rev == 1, "the ruling stands on the stream")
    assert await assert_replayed(nats, tenant) == ["breakers.opened"]


async def test_a_breaker_of_one_process_only_neither_follows_nor_binds_a_fleet(nats: EmbeddedNats) -> None:
    policy = POLICY.model_copy(update={"fleet": None})
    tenant = next(TENANTS)
    async with fleet(nats, tenant, policy=policy) as all_:
        for process in all_.processes[:3]:
            process.trip()
        async with connected(nats) as client:
            await until(lambda: _voted(client, tenant, 3), "the votes stand on the stream")
        await asyncio.sleep(0.3)
        assert all_.processes[3].call(answered=True) is CLOSED
    assert [event for event in await events_of(nats, tenant) if event.get("rev")] == []


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


# Without NATS


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
    # The server is gone, and with it the stream: that the rulings replay is shown above.


async def test_without_nats_nobody_waits_and_a_process_breaks_for_itself() -> None:
    clock = ScriptedClock(NOW)
    async with Recorder(options(_nowhere(), fault_domain="A"), clock=clock) as recorder:
        breakers = Breakers(recorder, POLICY)
        process = Process(recorder, breakers, breakers.of("crm"), clock)
        assert process.call(answered=True) is CLOSED
        process.trip()
        assert isinstance(process.call(answered=True), Refused)
        assert breakers.health().failure is not None
        clock.advance(20)
        assert process.call(answered=True) is not CLOSED
        assert process.call(answered=True) is CLOSED


async def test_after_its_recorder_a_breaker_still_breaks_and_counts_what_is_not_recorded() -> None:
    clock = ScriptedClock(NOW)
    recorder = Recorder(options(_nowhere()), clock=clock)
    breakers = Breakers(recorder, POLICY)
    process = Process(recorder, breakers, breakers.of("crm"), clock)
    with recorder:
        assert process.call(answered=True) is CLOSED
    process.trip()
    assert isinstance(process.call(answered=True), Refused)
    health = breakers.health()
    assert (health.unrecorded, health.failure) == (1, "the recorder is not running")


class _Nowhere:
    url = NOWHERE
    monitor_url = "http://127.0.0.1:9"


def _nowhere() -> EmbeddedNats:
    """An address that nobody listens on."""
    return _Nowhere()  # type: ignore[return-value]  # of a server only the addresses are asked


FORKING = """
import os, sys, time
from relight.engine.guard.breakers.breaker import CLOSED, Refused
from relight.engine.guard.breakers.breakers import Breakers
from relight.engine.recorder.recorder import Recorder, RecorderOptions
recorder = Recorder(RecorderOptions(nats_url=sys.argv[1], region="eu", tenant="acme", spools=None))
recorder.start()
breakers = Breakers.beside(recorder)
breaker = breakers.of("crm")
for _ in range(5):
    breaker.failed(breaker.permit(recorder.clock.now_us()))
assert isinstance(breaker.permit(recorder.clock.now_us()), Refused)
before = breakers.process
if (child := os.fork()) == 0:
    try:
        assert breakers.process != before
        assert breaker.permit(recorder.clock.now_us()) is CLOSED, "it knows of nothing"
        while breakers.health().failure is not None:
            time.sleep(0.01)
        for _ in range(5):
            breaker.failed(breaker.permit(recorder.clock.now_us()))
        assert isinstance(breaker.permit(recorder.clock.now_us()), Refused)
        recorder.stop()
    except BaseException as error:
        print(repr(error), flush=True)
        os._exit(1)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert breakers.process == before
recorder.stop()
"""


def test_a_forked_child_begins_anew_under_a_name_of_its_own(nats: EmbeddedNats) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKING, nats.url], capture_output=True, text=True, timeout=30, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stdout + done.stderr


# Tools


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


async def test_a_client_of_the_recorders_is_lent(nats: EmbeddedNats) -> None:
    async with Recorder(options(nats)) as recorder:
        client = await asyncio.wrap_future(recorder.in_loop(recorder.client()))
        assert client.is_connected
    probe = await connect(nats.url, name="test")
    await probe.close()
