"""Heartbeats between real recorders over a real server, and what a receiver makes of them."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
import stack
from beating import Scripted, beat

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.log.topology import connect
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.heard import FIRST_US, LEAVING_US, SUPERSEDED_US, Heard
from relight.engine.regions.heartbeats import (
    MAX_HEARTBEAT_BYTES,
    SERVICE,
    WORKER,
    Heartbeats,
    heartbeat_subject,
)
from relight.engine.regions.listening import STALLED_US, ListeningClock

pytestmark = pytest.mark.asyncio(loop_scope="module")
S = 1_000_000
QUICK_S = 0.02


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nats() -> AsyncIterator[EmbeddedNats]:
    async with stack.nats_server() as server:
        yield server


@contextmanager
def recorder(nats: EmbeddedNats, region: str = "eu") -> Iterator[Recorder]:
    with Recorder(stack.options(nats, region=region)) as one:
        yield one


@asynccontextmanager
async def running(recorder: Recorder, *parts: Any) -> AsyncIterator[None]:
    """In the recorder's own loop."""
    futures = [recorder.in_loop(part.run()) for part in parts]
    try:
        yield
    finally:
        for future in futures:
            future.cancel()


async def test_every_sender_of_the_fleet_is_heard_with_what_it_says_of_itself(nats: EmbeddedNats) -> None:
    with recorder(nats) as here, recorder(nats, "us") as there:
        heard = Heard(here)
        beats = [
            Heartbeats(there, SERVICE, "us", lambda: {"caught_up": True}, every_s=QUICK_S),
            Heartbeats(there, WORKER, "w.1 >*", lambda: {"queues": ["refunds"]}, every_s=QUICK_S),
        ]
        async with running(here, heard), running(there, *beats):
            service = await stack.until(lambda: heard.last(SERVICE, "us"), "the service is heard")
            await stack.until(lambda: (last := heard.last(WORKER, "w.1 >*")) and last.seq >= 3, "the worker is heard")
            assert (service.region, service.fields, service.generation) == (
                "us",
                {"caught_up": True},
                beats[0].generation,
            )
            assert [beat.fields for beat in heard.of(WORKER)] == [{"queues": ["refunds"]}]
            assert heard.of(SERVICE, "eu") == []
            assert heard.phi(SERVICE, "us") == pytest.approx(0, abs=0.1)
            assert heard.hears_others()
            assert heard.failure is None


async def test_a_busy_loop_of_the_process_delays_no_heartbeat(nats: EmbeddedNats) -> None:
    with recorder(nats, "us") as there:
        beats = Heartbeats(there, WORKER, "busy", every_s=QUICK_S)
        async with running(there, beats):
            await stack.until(lambda: beats.sent >= 1)
            before, until_s = beats.sent, time.monotonic() + 0.5
            while time.monotonic() < until_s:
                sum(range(1_000))  # holds this loop, and the interpreter's lock as long as that lets it
            assert beats.sent - before >= 10


async def test_what_is_no_heartbeat_is_counted_and_changes_nothing(nats: EmbeddedNats) -> None:
    body = {"id": "a", "region": "us", "kind": SERVICE, "generation": 1, "seq": 1, "sent_at_us": 1}
    with recorder(nats) as here:
        heard = Heard(here)
        async with running(here, heard):
            await stack.until(lambda: heard.listening)
            client = await connect(nats.url, name="relight test")
            for said in (
                b"",
                b"[]",
                b"\xff",
                orjson.dumps({**body, "seq": -1}),
                orjson.dumps({**body, "region": "eu"}),
            ):
                await client.publish(heartbeat_subject("us", SERVICE, "a"), said)
            await client.publish(heartbeat_subject("us", SERVICE, "a"), orjson.dumps(body))
            await client.close()
            await stack.until(lambda: heard.last(SERVICE, "a"))
    assert heard.unreadable == 5


async def test_fields_that_cannot_be_told_do_not_keep_anybody_from_living(nats: EmbeddedNats) -> None:
    def failing() -> dict[str, Any]:
        raise RuntimeError("not now")

    with recorder(nats) as here:
        heard = Heard(here)
        large = Heartbeats(here, WORKER, "large", lambda: {"x": "x" * MAX_HEARTBEAT_BYTES}, every_s=QUICK_S)
        unable = Heartbeats(here, WORKER, "unable", failing, every_s=QUICK_S)
        odd = Heartbeats(here, WORKER, "odd", lambda: {"x": object()}, every_s=QUICK_S)  # type: ignore[dict-item]
        async with running(here, heard, large, unable, odd):
            await stack.until(lambda: len(heard.of(WORKER)) == 3)
    assert [dict(beat.fields) for beat in heard.of(WORKER)] == [{}] * 3


async def test_while_nats_is_away_nobody_falls_silent_and_heartbeats_go_on_after_it(spools: Path) -> None:
    async with stack.nats_server() as own:
        with recorder(own) as here, recorder(own, "us") as there:
            heard, beats = Heard(here), Heartbeats(there, SERVICE, "us", every_s=0.1)
            async with running(here, heard), running(there, beats):
                await stack.until(lambda: heard.last(SERVICE, "us"))
                await own.stop()
                await stack.until(lambda: not heard.listening)
                assert heard.failure
                stood_us, until_s = heard.listened_us(), time.monotonic() + 0.3
                await stack.until(lambda: time.monotonic() > until_s)
                assert heard.listened_us() == stood_us
                missed = beats.sent
                await own.start()
                await stack.until(lambda: (last := heard.last(SERVICE, "us")) and last.seq > missed)
                assert beats.failure is None
                assert heard.region_phi("us") < heard.policy.threshold


# A receiver by itself, on a clock that stands until it is moved


@pytest.fixture
def scripted(tmp_path: Path) -> Scripted:
    options = stack.RecorderOptions(nats_url="nats://127.0.0.1:9", region="eu", tenant="acme", spools=tmp_path)
    return Scripted(Recorder(options))


async def test_old_and_doubled_heartbeats_are_no_sign_of_life(scripted: Scripted) -> None:
    scripted.beats(10)
    for seq in range(1, 11):
        scripted.heard.take(beat("us", seq=seq))
        scripted.pass_s(0.5)
    assert scripted.heard.region_phi("us") >= 8
    assert scripted.heard.silent_ms(SERVICE, "us") == 5_500


async def test_numbers_that_never_came_are_counted(scripted: Scripted) -> None:
    for seq in (1, 2, 5, 9):
        scripted.heard.take(beat("us", seq=seq))
    sender = scripted.heard.sender(SERVICE, "us")
    assert sender is not None
    assert sender.lost == 5


async def test_a_process_that_was_stopped_itself_suspects_nobody_for_it(scripted: Scripted) -> None:
    scripted.beats(10)
    scripted.us += 60 * S
    assert scripted.heard.region_phi("us") < 1
    scripted.pass_s(0.5)
    assert scripted.heard.region_phi("us") < 1
    assert scripted.clock.stalls == 1
    scripted.pass_s(3)
    assert scripted.heard.region_phi("us") >= 8


async def test_a_restarted_process_is_another_one_and_late_words_of_the_former_are_not_its_own(
    scripted: Scripted,
) -> None:
    scripted.beats(10)
    scripted.beats(2, generation=2)
    scripted.heard.take(beat("us", generation=1, seq=11))
    assert (last := scripted.heard.last(SERVICE, "us")) is not None
    assert (last.generation, last.seq) == (2, 2)
    assert scripted.heard.superseded == 1


async def test_of_two_starts_whichever_goes_on_is_believed_in_the_end(scripted: Scripted) -> None:
    scripted.beats(2, generation=2)
    scripted.heard.take(beat("us", generation=1, seq=9))  # the former's last word, overtaken by the new one's first
    scripted.beats(4, generation=2, first=3)
    assert (last := scripted.heard.last(SERVICE, "us")) is not None
    assert last.generation == 2
    assert SUPERSEDED_US < 2 * S
    assert scripted.heard.region_phi("us") < 1


async def test_a_region_that_was_never_heard_is_given_time(scripted: Scripted) -> None:
    scripted.pass_s(FIRST_US / S)
    assert scripted.heard.region_phi("ap") < 1
    scripted.pass_s(3)
    assert scripted.heard.region_phi("ap") >= 8


async def test_a_service_that_stops_on_purpose_is_given_time_to_come_back(scripted: Scripted) -> None:
    scripted.beats(3)
    scripted.heard.take(beat("us", seq=4, leaving=True))
    scripted.pass_s(LEAVING_US / S)
    assert scripted.heard.region_phi("us") < 1
    scripted.pass_s(3)
    assert scripted.heard.region_phi("us") >= 8


async def test_who_hears_nobody_of_another_region_is_cut_off_himself(scripted: Scripted) -> None:
    assert not scripted.heard.hears_others()
    scripted.beats(3)
    assert scripted.heard.hears_others()
    scripted.pass_s(4)
    scripted.heard.take(beat("eu", region="eu", seq=2))
    assert not scripted.heard.hears_others()


async def test_memory_is_bounded_and_whoever_was_silent_longest_goes_first(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relight.engine.regions.heard.MAX_SENDERS", 3)
    for n in range(5):
        scripted.heard.take(beat(f"w{n}", kind=WORKER))
        scripted.heard.take(beat("w0", kind=WORKER, seq=n + 2))
    assert sorted(last.id for last in scripted.heard.of(WORKER)) == ["w0", "w3", "w4"]
    assert scripted.heard.evicted == 2


async def test_the_listening_clock_stands_where_nobody_looked_for_long() -> None:
    clock = ListeningClock(0)
    clock.listen(0, True)
    assert clock.at(STALLED_US) == STALLED_US
    assert clock.at(STALLED_US + 1) == 0
    assert clock.look(STALLED_US + 1) == 0
    assert clock.look(STALLED_US + 11) == 10
    clock.listen(STALLED_US + 11, False)
    assert clock.look(STALLED_US + 99) == 10
