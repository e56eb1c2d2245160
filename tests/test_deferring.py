"""Deferred facts: what is made of them later is recorded as if it had been recorded at once, each event once."""

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import deferred
import pytest
from deferred import HERE, T0, ns, of, one, three, writer_of
from nats.aio.client import Client
from stack import drained, failed, options, until

from relight.engine import scope
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.errors import RecorderError
from relight.engine.log.content import fetch_content
from relight.engine.recorder.items import Kept, Made
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.scope import Scope
from relight.events.breakers import BreakerClosed
from relight.events.decisions import DecisionCheckpointed
from relight.events.values import Content

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]
nats, client = deferred.nats, deferred.client


async def test_facts_and_events_keep_the_order_in_which_they_came(
    nats: EmbeddedNats, client: Client, spools: Path
) -> None:
    async with Recorder(options(nats, spools)) as recorder:
        for n in range(0, 600, 2):
            recorder.defer(one, n, Scope())
            receipt = recorder.record(failed(n + 1))
        await receipt.reached(Ack.REPLICATED)
    found = await of(client, recorder)
    assert ns(found) == list(range(600))
    ids = [body["id"] for body in found]
    made = [body["id"] for body in found if body["type"] == "breakers.failed"][0::2]
    assert made == sorted(made)
    assert len(set(ids)) == len(ids)
    assert found[1]["time"] == "2026-09-21T14:13:20.000000Z"


async def test_the_scope_and_what_an_event_says_itself_stand_in_its_envelope(
    nats: EmbeddedNats, client: Client, spools: Path
) -> None:
    given = "018f0000-0000-7000-8000-000000000002"

    def two(n: int) -> Iterator[Made]:
        yield Made(failed(n), T0, id=given)
        yield Made(failed(n + 1), T0, tenant="ops", causation=given, traceparent=f"00-{'1' * 32}-{'2' * 16}-01")

    async with Recorder(options(nats, spools)) as recorder:
        with scope.entered(tenant="elsewhere"):
            recorder.defer(two, 1, HERE, 2)
            recorder.defer(one, 3, Scope())
    first, second, third = (body for body in await of(client, recorder) if body["type"] == "breakers.failed")
    assert (first["id"], first["tenant"], first["correlationid"], first["causationid"]) == (
        given,
        "globex",
        "run-7",
        HERE.causation,
    )
    assert (second["tenant"], second["correlationid"], second["causationid"]) == ("ops", "run-7", given)
    assert second["traceparent"] == f"00-{'1' * 32}-{'2' * 16}-01"
    assert third["tenant"] == "acme"


async def test_a_fact_alone_is_written_soon_although_nobody_wakes_the_writer(nats: EmbeddedNats, spools: Path) -> None:
    async with Recorder(options(nats, spools)) as recorder:
        for n in range(3):
            written = recorder.health().recorded_events
            recorder.defer(one, n, Scope())
            await until(lambda written=written: recorder.health().recorded_events > written, "it is spooled")


async def test_a_mark_is_reached_once_all_before_it_is(nats: EmbeddedNats, client: Client, spools: Path) -> None:
    async with Recorder(options(nats, spools)) as recorder:
        for n in range(300):
            recorder.defer(three, n, Scope(), 3)
        last = recorder.record(failed(900))
        mark = recorder.mark()
        await mark.reached(Ack.REPLICATED)
        assert mark.pseq == last.pseq
        assert ns(await of(client, recorder)) == list(range(901))


async def test_stopping_writes_what_was_deferred(nats: EmbeddedNats, client: Client, spools: Path) -> None:
    recorder = Recorder(options(nats, spools))
    recorder.start()
    for n in range(500):
        recorder.defer(three, n, Scope(), 3)
    await asyncio.to_thread(recorder.stop)
    found = await of(client, recorder)
    assert ns(found) == list(range(1_500))
    assert found[-1]["type"] == "recorder.closed"
    assert found[-1]["data"]["recorded_events"] == 1_501
    with pytest.raises(RecorderError, match="not running"):
        recorder.defer(one, 1, Scope())


async def test_at_the_cap_facts_are_refused_with_all_their_events_and_counted(
    nats: EmbeddedNats, client: Client, spools: Path
) -> None:
    begun, going_on = threading.Event(), threading.Event()

    def waits(n: int) -> Iterator[Made]:
        begun.set()
        going_on.wait(20)
        yield from one(n)

    async with Recorder(options(nats, spools, memory_max_events=30)) as recorder:
        await drained(recorder)
        recorder.defer(waits, 0, Scope())
        await until(begun.is_set, "it is being made")
        for n in range(1, 15):
            recorder.defer(three, n, Scope(), 3)
        refused = recorder.health().refused_events
        assert 0 < refused < 42
        assert refused % 3 == 0
        going_on.set()
        await drained(recorder)
        await recorder.record(failed(1_000)).reached(Ack.REPLICATED)
        assert recorder.health().refused_events == refused
        assert recorder._session.room.waiting_events == 0  # type: ignore[union-attr]
    found = await of(client, recorder)
    kept = 42 - refused
    assert ns(found) == [0, *range(3, 3 + kept), 1_000]
    assert sum(body["data"]["refused_events"] for body in found if body["type"] == "recorder.gap") == refused


async def test_what_cannot_become_an_event_is_counted_and_said_without_its_content(
    nats: EmbeddedNats, client: Client, spools: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def half(n: int) -> Iterator[Made]:
        yield Made(failed(n), T0)
        yield Made(failed(n, service="s3cret" * 100), T0)
        yield Made(failed(n + 1), T0)

    def ruling(_: int) -> Iterator[Made]:
        yield Made(BreakerClosed(service_name="s3cret", reason="well again"), T0)

    def nothing(_: int) -> Iterator[Made]:
        raise SystemExit("s3cret, of this thread")
        yield

    def huge(_: int) -> Iterator[Made]:
        yield Made(
            DecisionCheckpointed(
                decision="d", checkpoint_type="x", state_snapshot={str(i): "x" * 9_000 for i in range(60)}
            ),
            T0,
        )

    async with Recorder(options(nats, spools)) as recorder:
        recorder.defer(half, 1, Scope(), 3)
        for make in (ruling, nothing, huge):
            recorder.defer(make, 1, Scope())
        recorder.defer(one, 7, Scope())
        await recorder.record(failed(8)).reached(Ack.REPLICATED)
        assert recorder.health().refused_events == 2 + 3
        assert recorder.health().restarts == 0
        assert recorder._session.room.waiting_events == 0  # type: ignore[union-attr]
    assert ns(await of(client, recorder)) == [1, 7, 8]
    said = [record.getMessage() for record in caplog.records if getattr(record, "action", "") == "event_refused"]
    assert len(said) == 4
    assert "service_name: string_too_long" in said[0]
    assert "into content" in said[3]
    assert not [text for text in said if "s3cret" in text and "control.append" not in text]


async def test_content_reaches_the_store_before_its_event_and_is_counted_where_there_is_no_room(
    nats: EmbeddedNats, client: Client, spools: Path
) -> None:
    def kept(size: int) -> Iterator[Made | Kept]:
        body = b"x" * size
        content = Content(sha256=hashlib.sha256(body).hexdigest(), size_bytes=size)
        yield Kept(content.sha256, body)
        yield Made(DecisionCheckpointed(decision=str(size), checkpoint_type="x", content=content), T0)

    async with Recorder(options(nats, spools, spool_max_bytes=1 << 20)) as recorder:
        recorder.defer(kept, 100, HERE)
        recorder.defer(kept, 2 << 20, HERE)
        await recorder.record(failed(1)).reached(Ack.REPLICATED)
        assert recorder.health().refused_contents == 1
        await drained(recorder)
        assert recorder._session.room.exposed_bytes == 0  # type: ignore[union-attr]
    assert [body["subject"] for body in await of(client, recorder) if body["tenant"] == "globex"] == [
        "100",
        f"{2 << 20}",
    ]
    body = b"x" * 100
    wanted = Content(sha256=hashlib.sha256(body).hexdigest(), size_bytes=100)
    assert await fetch_content(client.jetstream(), "globex", wanted) == body


async def test_the_writer_is_woken_by_every_event_and_by_no_fact_that_can_wait(
    nats: EmbeddedNats, spools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relight.engine.recorder.inbox.LINGER_S", 3_600.0)
    async with Recorder(options(nats, spools)) as recorder:
        await drained(recorder)
        inbox = writer_of(recorder)._inbox
        await until(lambda: inbox._waits and not inbox._items, "it waits")
        for n in range(1_000):
            recorder.defer(one, n, Scope())
        assert inbox._waits
        assert recorder.health().recorded_events == 1
        await recorder.record(failed(1_000)).reached(Ack.SPOOLED)
        assert recorder.health().recorded_events == 1_002
        recorder.defer(one, 1_001, Scope())
        recorder.defer(one, 1_002, Scope(), at_once=True)
        await until(lambda: recorder.health().recorded_events == 1_004, "what is told at once takes the rest along")


async def test_more_facts_than_one_group_holds_are_written_without_waiting_in_between(
    nats: EmbeddedNats, spools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relight.engine.recorder.items.GROUP_EVENTS", 10)
    monkeypatch.setattr("relight.engine.recorder.inbox.LINGER_S", 1.0)
    async with Recorder(options(nats, spools)) as recorder:
        await drained(recorder)
        for n in range(500):
            recorder.defer(one, n, Scope())
        await until(lambda: recorder.health().recorded_events == 501, "all 50 groups are spooled", within_s=30)
