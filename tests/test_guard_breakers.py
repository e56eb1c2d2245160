"""The breaker of one process: on a real NATS server, while NATS is away, and in a child that it forked."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
from datetime import timedelta

import breaking
import pytest
from breaking import POLICY, TENANTS, Process, events_of, fleet
from stack import NOW, options

from relight.engine import scope
from relight.engine.clock import ScriptedClock
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.guard.breakers.breaker import CLOSED, Permit, Refused
from relight.engine.guard.breakers.breakers import Breakers
from relight.engine.log.topology import connect
from relight.engine.policies.fleet_breaker import State
from relight.engine.recorder.recorder import Recorder
from relight.events.errors import InvalidEvent

NOWHERE = "nats://127.0.0.1:9"
nats = breaking.nats


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


async def test_a_client_of_the_recorders_is_lent(nats: EmbeddedNats) -> None:
    async with Recorder(options(nats)) as recorder:
        client = await asyncio.wrap_future(recorder.in_loop(recorder.client()))
        assert client.is_connected
    probe = await connect(nats.url, name="test")
    await probe.close()
