"""A recorder's thread that died or hangs is noticed within 5 s and replaced; nothing is lost, doubled, or held up."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from stack import assert_chained, connected, drained, failed, nats_server, numbers, on_stream, options, until

from relight.engine.recorder import drainer, encoding
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.spool.spool import Spool

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")

NOTICED_S = 5.0
BEFORE, AFTER = 50, 100


class Once:
    """Does something in place of the first call, and then what the original does."""

    def __init__(self, original: Callable[..., Any], instead: Callable[..., Any]) -> None:
        self._original, self._instead = original, instead
        self.armed = False

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if self.armed:
            self.armed = False
            return self._instead(self._original, *arguments, **named)
        return self._original(*arguments, **named)


@asynccontextmanager
async def recording(spools: Path) -> AsyncIterator[tuple[Recorder, Client]]:
    """A recorder with `BEFORE` events on the stream; at the end all of `AFTER` have to be there, each once, chained."""
    async with nats_server() as nats, connected(nats) as client:
        async with Recorder(options(nats, spools)) as recorder:
            for n in range(BEFORE):
                recorder.record(failed(n))
            await drained(recorder)
            yield recorder, client
            await drained(recorder)
            assert recorder.health().failure is None
        messages = await on_stream(client)
        assert sorted(numbers(messages)) == list(range(AFTER))
        assert_chained(messages, recorder.publisher)


def record_the_rest(recorder: Recorder) -> Any:
    """The last receipt; no call takes long, whatever its threads do."""
    for n in range(BEFORE, AFTER):
        began = time.perf_counter()
        receipt = recorder.record(failed(n))
        assert time.perf_counter() - began < 0.1
    return receipt


async def restarted(recorder: Recorder, since: float) -> None:
    await until(lambda: recorder.health().restarts == 1, "it is restarted", within_s=NOTICED_S)
    assert time.monotonic() - since < NOTICED_S


def ends_the_thread(*_arguments: Any, **_named: Any) -> None:
    raise SystemExit("of this thread")


@pytest.mark.parametrize("moment", ["before the commit", "after the commit"])
async def test_a_writer_that_died_is_replaced(moment: str, spools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def commits_and_dies(original: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        original(*arguments, **named)
        raise SystemExit("of this thread")

    poison = Once(Spool.commit, ends_the_thread if moment == "before the commit" else commits_and_dies)
    monkeypatch.setattr(Spool, "commit", lambda *arguments, **named: poison(*arguments, **named))
    async with recording(spools) as (recorder, _):
        poison.armed, began = True, time.monotonic()
        receipt = record_the_rest(recorder)
        await restarted(recorder, began)
        await receipt.reached(Ack.REPLICATED)


async def test_a_writer_that_hangs_is_replaced_and_writes_nothing_when_it_wakes(
    spools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, woke = threading.Event(), threading.Event()

    def hangs(original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        released.wait(30)
        try:
            return original(*arguments, **named)
        finally:
            woke.set()

    poison = Once(encoding.encode, hangs)
    monkeypatch.setattr(encoding, "encode", poison)
    async with recording(spools) as (recorder, _):
        poison.armed, began = True, time.monotonic()
        receipt = record_the_rest(recorder)
        await restarted(recorder, began)
        await receipt.reached(Ack.REPLICATED)
        released.set()
        await asyncio.to_thread(woke.wait, 10)


async def test_a_writer_that_hangs_in_the_middle_of_a_transaction_is_said_and_goes_on_by_itself(spools: Path) -> None:
    async with recording(spools) as (recorder, _):
        other = sqlite3.connect(spools / "slot-0.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        receipt = record_the_rest(recorder)
        await until(
            lambda: "does not come back from the disk" in (recorder.health().failure or ""),
            "it is said",
            within_s=NOTICED_S,
        )
        assert time.monotonic() - began < NOTICED_S
        assert receipt.pseq is None
        other.execute("ROLLBACK")
        other.close()
        await receipt.reached(Ack.REPLICATED)


@pytest.mark.parametrize("how", ["hangs", "dies"])
async def test_a_loop_that_hangs_or_dies_is_replaced(how: str, spools: Path) -> None:
    released, woke = threading.Event(), threading.Event()

    async def poison() -> None:
        if how == "dies":
            raise SystemExit("of this thread")
        try:
            released.wait(30)
        finally:
            woke.set()

    async with recording(spools) as (recorder, _):
        began = time.monotonic()
        recorder.in_loop(poison())
        receipt = record_the_rest(recorder)
        waiting = asyncio.create_task(receipt.reached(Ack.REPLICATED))
        await restarted(recorder, began)
        await waiting
        released.set()
        if how == "hangs":
            await asyncio.to_thread(woke.wait, 10)
        await drained(recorder)


@pytest.mark.parametrize("how", ["is cancelled", "never returns", "raises"])
async def test_a_drainer_that_ended_or_waits_for_what_never_comes_is_begun_anew(
    how: str, spools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def instead(_original: Any, *_arguments: Any) -> int:
        match how:
            case "is cancelled":  # as a library's future is, when its connection is closed
                raise asyncio.CancelledError
            case "never returns":
                return await asyncio.get_running_loop().create_future()
            case _:
                raise BaseExceptionGroup("no edge catches this", [SystemError()])

    monkeypatch.setattr(drainer, "STEP_S", 1.0)
    poison = Once(drainer.publish_batch, instead)
    monkeypatch.setattr(drainer, "publish_batch", poison)
    async with recording(spools) as (recorder, _):
        poison.armed, began = True, time.monotonic()
        receipt = record_the_rest(recorder)
        await receipt.reached(Ack.REPLICATED)
        assert time.monotonic() - began < NOTICED_S
        if how != "raises":
            assert recorder.health().restarts == 1


async def test_stopping_right_after_the_writer_died_still_writes_what_was_taken(
    spools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = Once(Spool.commit, ends_the_thread)
    monkeypatch.setattr(Spool, "commit", lambda *arguments, **named: poison(*arguments, **named))
    async with nats_server() as nats, connected(nats) as client:
        async with Recorder(options(nats, spools)) as recorder:
            await recorder.record(failed(0)).reached(Ack.REPLICATED)
            poison.armed = True
            for n in range(1, 50):
                recorder.record(failed(n))
        assert sorted(numbers(await on_stream(client))) == list(range(50))
