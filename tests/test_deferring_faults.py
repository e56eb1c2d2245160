"""Deferred facts while something goes wrong: each is recorded whole or counted, and none twice."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import deferred
import pytest
from deferred import T0, ns, of, one, three
from nats.aio.client import Client
from stack import assert_chained, bodies, connected, drained, failed, nats_server, numbers, on_stream, options, until
from told_by_children import Telling

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.errors import SpoolFault, SpoolUnusable
from relight.engine.recorder import watchdog
from relight.engine.recorder.items import Made
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.scope import Scope
from relight.engine.spool.spool import Spool

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]
nats, client = deferred.nats, deferred.client


class Once:
    """Does something in place of the first call once armed, and then what the original does."""

    def __init__(self, original: Callable[..., Any], instead: Callable[..., Any]) -> None:
        self._original, self._instead, self.armed = original, instead, False

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if self.armed:
            self.armed = False
            return self._instead(self._original, *arguments, **named)
        return self._original(*arguments, **named)


@pytest.fixture
def quick_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "TICK_S", 0.05)
    monkeypatch.setattr(watchdog, "HANGS_TICKS", 20)


@pytest.mark.parametrize("moment", ["before the commit", "after the commit"])
async def test_a_writer_that_died_leaves_no_fact_half_recorded_and_none_twice(
    moment: str,
    nats: EmbeddedNats,
    client: Client,
    spools: Path,
    monkeypatch: pytest.MonkeyPatch,
    quick_watchdog: None,
) -> None:
    def dies(original: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        if moment == "after the commit":
            original(*arguments, **named)
        raise SystemExit("of this thread")

    poison = Once(Spool.commit, dies)
    monkeypatch.setattr(Spool, "commit", lambda *arguments, **named: poison(*arguments, **named))
    async with Recorder(options(nats, spools)) as recorder:
        await drained(recorder)
        poison.armed = True
        for n in range(100):
            recorder.defer(three, n, Scope(), 3)
        await recorder.record(failed(300)).reached(Ack.REPLICATED)
        assert recorder.health().restarts == 1
        assert recorder.health().refused_events == 0
        assert recorder._session.room.waiting_events == 0  # type: ignore[union-attr]
    assert ns(await of(client, recorder)) == list(range(301))


async def test_a_fact_whose_making_hangs_is_given_up_and_counted_and_all_others_are_recorded(
    nats: EmbeddedNats, client: Client, spools: Path, quick_watchdog: None
) -> None:
    released, woke = threading.Event(), threading.Event()

    def hangs(n: int) -> Iterator[Made]:
        yield Made(failed(n), T0)
        released.wait(30)
        woke.set()
        yield Made(failed(n + 1), T0)

    async with Recorder(options(nats, spools)) as recorder:
        await drained(recorder)
        for n in range(50):
            recorder.defer(one, n, Scope())
        recorder.defer(hangs, 1_000, Scope(), 2)
        for n in range(50, 100):
            recorder.defer(one, n, Scope())
        await recorder.record(failed(100)).reached(Ack.REPLICATED)
        assert recorder.health().restarts == 1
        assert recorder.health().refused_events == 2
        released.set()
        await asyncio.to_thread(woke.wait, 10)
        await recorder.record(failed(101)).reached(Ack.REPLICATED)
        assert recorder._session.room.waiting_events == 0  # type: ignore[union-attr]
    assert ns(await of(client, recorder)) == list(range(102))


async def test_many_facts_that_are_slow_to_make_are_no_sign_of_a_thread_that_hangs(
    nats: EmbeddedNats, client: Client, spools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "TICK_S", 0.02)
    monkeypatch.setattr(watchdog, "HANGS_TICKS", 20)

    def slow(n: int) -> Iterator[Made]:
        time.sleep(0.02)
        yield from one(n)

    async with Recorder(options(nats, spools)) as recorder:
        for n in range(60):
            recorder.defer(slow, n, Scope())
        await recorder.record(failed(60)).reached(Ack.REPLICATED)
        assert recorder.health().restarts == 0
    assert ns(await of(client, recorder)) == list(range(61))


async def test_what_was_deferred_goes_along_when_recording_moves_to_another_spool(
    nats: EmbeddedNats, client: Client, spools: Path, monkeypatch: pytest.MonkeyPatch, quick_watchdog: None
) -> None:
    held, going_on = threading.Event(), threading.Event()

    def damaged(_original: Callable[..., Any], *_arguments: Any, **_named: Any) -> None:
        held.set()
        going_on.wait(20)
        raise SpoolUnusable("it is damaged", fault=SpoolFault.CORRUPT)

    poison = Once(Spool.commit, damaged)
    monkeypatch.setattr(Spool, "commit", lambda *arguments, **named: poison(*arguments, **named))
    monkeypatch.setattr(watchdog, "HANGS_TICKS", 1_000)
    async with Recorder(options(nats, spools)) as recorder:
        old = recorder.publisher
        await drained(recorder)
        poison.armed = True
        for n in range(100):
            recorder.defer(three, n, Scope(), 3)
        await until(held.is_set, "the first are made, and about to be written")
        for n in range(100, 200):
            recorder.defer(three, n, Scope(), 3)
        going_on.set()
        await until(lambda: recorder.publisher != old, "it goes on elsewhere")
        await recorder.record(failed(600)).reached(Ack.REPLICATED)
        assert recorder.health().refused_events == 0
        assert recorder._session.room.waiting_events == 0  # type: ignore[union-attr]
    assert ns(await of(client, recorder)) == list(range(601))


async def test_a_forked_child_records_its_own_facts_and_none_of_its_parents(
    nats: EmbeddedNats, client: Client, spools: Path
) -> None:
    def forks() -> int:
        with Recorder(options(nats, spools)) as recorder:
            recorder.defer(one, 1, Scope())
            child = os.fork()
            if child == 0:
                recorder.defer(one, 2, Scope())
                recorder.stop()
                os._exit(0)
            recorder.defer(one, 3, Scope())
            code = os.waitpid(child, 0)[1]
            publishers.append(recorder.publisher)
            return code

    before = len(numbers(await on_stream(client)))
    publishers: list[str] = []
    assert await asyncio.to_thread(forks) == 0

    async def all_there() -> bool:
        return len(numbers(await on_stream(client))) == before + 3

    await until(all_there, "both have recorded")
    messages = await on_stream(client)
    assert ns(assert_chained(messages, publishers[0])) == [1, 3]
    [other] = {body["publisher"] for body in bodies(messages)[-20:] if body["data"].get("details") == {"n": 2}}
    assert other != publishers[0]


async def test_a_finalizer_may_defer_while_its_own_thread_is_inside_the_recorder(
    nats: EmbeddedNats, client: Client, spools: Path
) -> None:
    """Found: a stream that is dropped is journalled when the collector runs, in whatever line of whatever thread."""
    async with Recorder(options(nats, spools)) as recorder:
        session = recorder._session
        assert session is not None
        with session.room._lock, session.writer.refusals._lock:
            recorder.defer(one, 1, Scope())
    assert ns(await of(client, recorder)) == [1]


async def test_of_a_killed_process_every_fact_that_is_recorded_is_recorded_whole(spools: Path) -> None:
    async with nats_server() as nats, connected(nats) as client:
        child = await Telling.start("deferring_child.py", nats, spools)
        told = child.killed(await child.told(400))
        async with Recorder(options(nats, spools)) as recorder:
            assert recorder.publisher == child.publisher
            await drained(recorder)
        found = [n for n in ns(await of(client, recorder)) if n >= 0]
        assert found == list(range(len(found)))
        assert len(found) % 3 == 0
        assert len(found) >= 3 * told
