"""The recorder against real servers: nothing is lost, doubled, or promised without proof."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import stack
from nats.js.api import ObjectStoreConfig
from stack import (
    assert_chained,
    bodies,
    connected,
    drained,
    failed,
    holds_of,
    nats_server,
    numbers,
    on_stream,
    options,
    projecting,
    until,
)
from told_by_children import Telling

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.errors import AckNotProven, AckTimeout, ContentError, RecorderError, RecordRefused
from relight.engine.log.content import fetch_content
from relight.engine.log.topology import STREAM, stream_config
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.spool.spool import MEMORY, Spool, Spooled, SpooledContent
from relight.events.breakers import BreakerClosed
from relight.events.decisions import DecisionCheckpointed
from relight.events.errors import InvalidEvent
from relight.events.values import Content


async def test_an_event_is_spooled_then_replicated_then_projected(spools: Path, database: str) -> None:
    async with (
        nats_server() as nats,
        projecting(nats, database) as projected,
        Recorder(options(nats, spools)) as recorder,
    ):
        receipt = recorder.record(failed(1))
        for ack in Ack:
            await receipt.reached(ack)
        rows = await projected.rows("SELECT * FROM circuit_breaker_events")
        assert [row["event_id"].__str__() for row in rows] == [receipt.id]
        assert (await recorder.attestation()).proven
        health = recorder.health()
        assert (health.exposed_events, health.exposed_bytes, health.failure) == (0, 0, None)


async def test_numbers_and_chain_go_on_across_restarts(spools: Path) -> None:
    async with nats_server() as nats, connected(nats) as client:
        publishers = set()
        for session in range(3):
            async with Recorder(options(nats, spools)) as recorder:
                publishers.add(recorder.publisher)
                for n in range(5):
                    recorder.record(failed(10 * session + n))
        [publisher] = publishers
        found = assert_chained(await on_stream(client), publisher)
        assert [body["type"] for body in found] == ["recorder.opened", *["breakers.failed"] * 5, "recorder.closed"] * 3
        assert [body["data"]["recorded_events"] for body in found[6::7]] == [6, 6, 6]
        opened = found[7]["data"]
        assert (opened["predecessor_pseq"], opened["predecessor_sha256"]) == (7, found[7]["prev"])


async def test_an_invalid_event_is_refused_at_once_and_the_field_named(spools: Path) -> None:
    async with nats_server() as nats:
        with Recorder(options(nats, spools)) as recorder:
            with pytest.raises(ValueError, match="details"):
                stack.BreakerFailed(service_name="api", details={"x": float("nan")})
            with pytest.raises(InvalidEvent, match="ruling"):
                recorder.record(BreakerClosed(service_name="api", reason="well again"))
            with pytest.raises(InvalidEvent, match="into content"):
                recorder.record(
                    stack.BreakerFailed(service_name="api", details={str(i): "x" * 9_000 for i in range(60)})
                )
            with pytest.raises(InvalidEvent, match="no UUIDv7"):
                recorder.record(failed(1), id="\ud800")
            receipt = recorder.record(failed(2))
            await receipt.reached(Ack.SPOOLED)
            assert receipt.pseq == 2


async def test_a_recorder_that_was_never_started_or_is_closed_says_so(spools: Path) -> None:
    async with nats_server() as nats:
        recorder = Recorder(options(nats, spools))
        with pytest.raises(RecorderError, match="not running"):
            recorder.record(failed(1))
        recorder.stop()
        recorder.start()
        receipt = recorder.record(failed(1))
        recorder.stop()
        recorder.stop()
        with pytest.raises(RecorderError, match="not running"):
            recorder.record(failed(1))
        await receipt.reached(Ack.SPOOLED)
        with pytest.raises(RecorderError, match="closed"):
            await receipt.reached(Ack.PROJECTED)


async def test_recording_goes_on_while_nats_is_away_and_all_is_drained_in_order(spools: Path) -> None:
    async with nats_server() as nats:
        await nats.kill()
        with Recorder(options(nats, spools)) as recorder:
            for n in range(300):
                recorder.record(failed(n))
            await recorder.record(failed(300)).reached(Ack.SPOOLED)
            assert recorder.health().failure
            await nats.start()
            await drained(recorder)
            for n in range(301, 3_000):
                recorder.record(failed(n))
                if n == 1_500:
                    await nats.kill()
            await recorder.record(failed(3_000)).reached(Ack.SPOOLED)
            with pytest.raises(AckTimeout):
                await recorder.record(failed(3_001)).reached(Ack.REPLICATED, timeout_s=0.2)
            await nats.start()
            await drained(recorder)
        async with connected(nats) as client:
            messages = await on_stream(client)
            assert numbers(messages) == list(range(3_002))
            assert_chained(messages, recorder.publisher)


async def test_acknowledgements_that_were_lost_lose_and_double_nothing(spools: Path, database: str) -> None:
    total, kills = 6_000, 0
    async with (
        nats_server() as nats,
        projecting(nats, database) as projected,
        Recorder(options(nats, spools)) as recorder,
    ):
        for n in range(total):
            recorder.record(failed(n))
            if n % 1_500 == 1_499:
                before = recorder.health().exposed_events
                await until(lambda: recorder.health().exposed_events < before, "batches are on their way")  # noqa: B023
                await nats.kill()
                kills += 1
                await nats.start()
        await drained(recorder)
        assert kills == 4
        await projected.caught_up()
        assert await projected.rows("SELECT count(*), count(DISTINCT details) AS n FROM circuit_breaker_events") == [
            {"count": total, "n": total}
        ]
        messages = await on_stream(projected.client)
        assert numbers(messages) == list(range(total))
        assert_chained(messages, recorder.publisher)
        await projected.digests_agree()


async def test_what_a_killed_process_was_told_is_spooled_is_published_by_the_next(spools: Path) -> None:
    async with nats_server() as nats, connected(nats) as client:
        child = await Telling.start("recording_child.py", nats, spools)
        await child.told(400)
        await nats.kill()  # so that some of it is certain to be on the disk alone
        told = child.killed(await child.told(1_200))
        await nats.start()
        async with Recorder(options(nats, spools)) as recorder:
            assert recorder.publisher == child.publisher
            await drained(recorder)
            found = numbers(await on_stream(client))
            assert found == list(range(1, len(found) + 1))
            assert len(found) >= told
        sessions = [
            b["type"]
            for b in assert_chained(await on_stream(client), child.publisher)
            if b["type"] != "breakers.failed"
        ]
        assert sessions == ["recorder.opened", "recorder.opened", "recorder.closed"]


async def test_without_a_disk_spooled_is_not_promised_but_replicated_is() -> None:
    async with nats_server() as nats, Recorder(options(nats, None)) as recorder:
        receipt = recorder.record(failed(1))
        with pytest.raises(AckNotProven, match="no spool on disk"):
            await receipt.reached(Ack.SPOOLED)
        await receipt.reached(Ack.REPLICATED)


def test_a_spool_in_memory_shows_no_event_before_its_content() -> None:
    """Found: its drainer reads in the middle of a commit, sent the events, and the contents were lost at the end."""
    spool = Spool(MEMORY)
    content = SpooledContent("acme", "a" * 64, b"state", 0)

    def events() -> Iterator[Spooled]:
        for pseq in (1, 2):
            assert spool.contents(1_000) == [content]
            yield Spooled(pseq, f"id-{pseq}", "ev.x", b"{}", "b" * 64, 0)

    spool.commit(events(), [content])  # type: ignore[arg-type]  # an iterator shows when each is written
    assert [event.pseq for event in spool.pending(0, 10, 1_000)] == [1, 2]


async def test_content_is_stored_before_the_event_that_refers_to_it(spools: Path) -> None:
    async with nats_server() as nats, connected(nats) as client, Recorder(options(nats, spools)) as recorder:
        js = client.jetstream(timeout=5)
        bucket = await js.create_object_store("content", config=ObjectStoreConfig(max_bytes=1_000))
        for n in range(30):
            held = recorder.content(b"state %d" % n * 1_000)
            recorder.record(
                DecisionCheckpointed(decision="d", checkpoint_type="state", state_snapshot={"n": n}, content=held)
            )
        await until(lambda: "maximum bytes" in (recorder.health().failure or ""), "the content store is full")
        assert [body["type"] for body in bodies(await on_stream(client))] in ([], ["recorder.opened"])
        config = (await js.stream_info("OBJ_content")).config
        config.max_bytes = -1
        await js.update_stream(config=config)
        await drained(recorder)
        checkpoints = [body["data"] for body in bodies(await on_stream(client)) if body["data"].get("content")]
        assert len(checkpoints) == 30
        for data in checkpoints:
            content = Content(**data["content"])
            assert await fetch_content(js, "acme", content) == b"state %d" % data["state_snapshot"]["n"] * 1_000
        again = recorder.content(b"state 0" * 1_000)
        await until(lambda: recorder.health().exposed_bytes == 0, "content that is there already leaves the spool")
        with pytest.raises(ContentError, match="not in the store"):
            await fetch_content(js, "acme", Content(sha256="0" * 64, size_bytes=1))
        await bucket.put(f"acme/{again.sha256}", b"other bytes")
        with pytest.raises(ContentError, match="other bytes"):
            await fetch_content(js, "acme", again)


async def test_events_recorded_from_several_threads_at_once_are_all_there_once(spools: Path) -> None:
    async with nats_server() as nats, connected(nats) as client:
        async with Recorder(options(nats, spools)) as recorder:

            def work(thread: int) -> None:
                receipts = [recorder.record(failed(1_000 * thread + n)) for n in range(1_000)]
                for receipt in receipts:
                    receipt.wait(Ack.SPOOLED)

            threads = [threading.Thread(target=work, args=(thread,)) for thread in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                await asyncio.to_thread(thread.join)
            await drained(recorder)
        messages = await on_stream(client)
        assert sorted(numbers(messages)) == list(range(6_000))
        assert_chained(messages, recorder.publisher)
        for thread in range(6):
            of_thread = [n for n in numbers(messages) if n // 1_000 == thread]
            assert of_thread == sorted(of_thread)


def test_receipts_are_waited_for_without_a_loop(spools: Path, home: Path) -> None:
    loop = asyncio.new_event_loop()
    with stack.folder() as path:
        nats = EmbeddedNats(path)
        loop.run_until_complete(nats.start())
        with Recorder(options(nats, spools)) as recorder:
            receipt = recorder.record(failed(1))
            receipt.wait(Ack.REPLICATED)
            with pytest.raises(AckTimeout, match="projected"):
                receipt.wait(Ack.PROJECTED, timeout_s=0.1)
        loop.run_until_complete(nats.stop())
    loop.close()


async def test_stopping_is_bounded_when_nats_is_away_and_ends_all_waiting(spools: Path) -> None:
    async with nats_server() as nats:
        recorder = Recorder(options(nats, spools))
        recorder.start()
        await recorder.record(failed(1)).reached(Ack.REPLICATED)
        await nats.kill()
        receipt = recorder.record(failed(2))
        waiting = asyncio.create_task(receipt.reached(Ack.REPLICATED))
        began = time.monotonic()
        await asyncio.to_thread(recorder.stop, deadline_s=10)
        assert time.monotonic() - began < 8
        with pytest.raises(RecorderError, match="closed"):
            await waiting
        await nats.start()
        async with Recorder(options(nats, spools)), connected(nats) as client:
            await until(lambda: holds_of(client, recorder.publisher, 5), "the rest is drained by the next")


async def test_a_stream_that_is_full_is_shown_and_drained_once_there_is_room(spools: Path) -> None:
    async with nats_server() as nats, connected(nats) as client:
        js = client.jetstream()
        config = stream_config()
        config.max_msgs = 10
        await js.update_stream(config=config)
        async with Recorder(options(nats, spools)) as recorder:
            for n in range(30):
                recorder.record(failed(n))
            await until(lambda: "maximum messages" in (recorder.health().failure or ""), "the failure is shown")
            assert (await js.stream_info(STREAM)).state.messages == 10
            config.max_msgs = -1
            await js.update_stream(config=config)
            await drained(recorder)
            assert recorder.health().failure is None
        assert numbers(await on_stream(client)) == list(range(30))


async def test_a_spool_that_cannot_be_written_loses_nothing_while_it_recovers(spools: Path) -> None:
    async with nats_server() as nats, connected(nats) as client:
        async with Recorder(options(nats, spools)) as recorder:
            await recorder.record(failed(0)).reached(Ack.REPLICATED)
            spool = recorder._session._slot.spool  # type: ignore[union-attr]
            spool._db.execute("PRAGMA max_page_count = 1")  # SQLite's "database or disk is full"
            receipts = [recorder.record(failed(n)) for n in range(1, 200)]
            await until(lambda: "full" in (recorder.health().failure or ""), "the failure is shown")
            assert receipts[-1].pseq is None
            spool._db.execute("PRAGMA max_page_count = 1000000")
            await receipts[-1].reached(Ack.REPLICATED)
            assert recorder.health().failure is None
        assert numbers(await on_stream(client)) == list(range(200))
        assert_chained(await on_stream(client), recorder.publisher)


async def test_stopping_while_the_spool_cannot_be_written_counts_what_is_lost(spools: Path) -> None:
    async with nats_server() as nats:
        recorder = Recorder(options(nats, spools))
        recorder.start()
        await recorder.record(failed(0)).reached(Ack.REPLICATED)
        recorder._session._slot.spool._db.execute("PRAGMA max_page_count = 1")  # type: ignore[union-attr]
        receipts = [recorder.record(failed(n)) for n in range(200)]
        await until(lambda: "full" in (recorder.health().failure or ""), "the failure is shown")
        await asyncio.to_thread(recorder.stop, deadline_s=0.5)
        assert all(receipt.refused for receipt in receipts)
        assert recorder.health().refused_events >= 200
        with pytest.raises(RecordRefused, match="full"):
            await receipts[0].reached(Ack.SPOOLED)
