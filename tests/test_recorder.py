"""The recorder against real servers: nothing is lost, doubled, or promised without proof."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import stack
from nats.js.api import ObjectStoreConfig, StorageType
from stack import assert_chained, bodies, connected, failed, nats_server, numbers, on_stream, options, projecting, until

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.errors import AckNotProven, AckTimeout, ContentError, RecorderError, RecordRefused, SpoolUnusable
from relight.engine.log.content import fetch_content
from relight.engine.log.publishing import publish_one, request
from relight.engine.log.receipts import Ack, Receipt
from relight.engine.log.recorder import Recorder
from relight.engine.log.spool import Acked, Spool, Spooled
from relight.engine.log.topology import STREAM, connect, stream_config
from relight.events.breakers import BreakerClosed
from relight.events.decisions import DecisionCheckpointed
from relight.events.errors import InvalidEvent
from relight.events.values import Content


@pytest.fixture
def spools() -> Iterator[Path]:
    with stack.folder() as path:
        yield path / "spool"


async def drained(recorder: Recorder) -> None:
    await until(lambda: recorder.health().exposed_events == 0, "the spool is drained")


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
        child = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("recording_child.py")), nats.url, str(spools)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        publisher = (await asyncio.to_thread(child.stdout.readline)).split()[1]
        told = 0
        while told < 400:
            told = int(await asyncio.to_thread(child.stdout.readline))
        await nats.kill()  # so that some of it is certain to be on the disk alone
        while told < 1_200:
            told = int(await asyncio.to_thread(child.stdout.readline))
        child.send_signal(signal.SIGKILL)
        told = max([told, *(int(line) for line in child.stdout.read().split("\n")[:-1])])
        child.wait()
        child.stdout.close()
        await nats.start()
        async with Recorder(options(nats, spools)) as recorder:
            assert recorder.publisher == publisher
            await drained(recorder)
            found = numbers(await on_stream(client))
            assert found == list(range(1, len(found) + 1))
            assert len(found) >= told
        sessions = [
            b["type"] for b in assert_chained(await on_stream(client), publisher) if b["type"] != "breakers.failed"
        ]
        assert sessions == ["recorder.opened", "recorder.opened", "recorder.closed"]


async def test_slots_are_shared_out_among_the_living_and_reused_after_them(spools: Path) -> None:
    async with nats_server() as nats:
        async with Recorder(options(nats, spools)) as first, Recorder(options(nats, spools)) as second:
            assert first.publisher != second.publisher
            known = {first.publisher, second.publisher}
        async with Recorder(options(nats, spools)) as third:
            assert third.publisher in known


async def test_a_copied_spool_is_drained_under_its_identity_but_never_written_under_it(spools: Path) -> None:
    async with nats_server() as nats, connected(nats) as client:
        await nats.kill()
        recorder = Recorder(options(nats, spools))
        recorder.start()
        await recorder.record(failed(1)).reached(Ack.SPOOLED)
        original = recorder.publisher
        recorder.stop(deadline_s=0.1)
        slot = spools / "slot-0.db"
        shutil.copy(slot, spools / "copy")
        (spools / "copy").rename(slot)
        await nats.start()
        async with Recorder(options(nats, spools)) as clone:
            assert clone.publisher != original
            await clone.record(failed(2)).reached(Ack.REPLICATED)
            await until(lambda: _has(client, original, 3), "the old identity's events are drained")
        messages = await on_stream(client)
        assert [b["type"] for b in assert_chained(messages, original)][1:] == ["breakers.failed", "recorder.closed"]
        assert len(assert_chained(messages, clone.publisher)) == 3


async def _has(client: stack.Client, publisher: str, events: int) -> bool:
    return sum(body["publisher"] == publisher for body in bodies(await on_stream(client))) == events


async def test_a_forked_child_records_under_an_identity_of_its_own(spools: Path) -> None:
    async with nats_server() as nats, connected(nats) as client:
        async with Recorder(options(nats, spools)) as recorder:
            mine = recorder.record(failed(1))
            await mine.reached(Ack.REPLICATED)
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    receipt = recorder.record(failed(2))
                    receipt.wait(Ack.REPLICATED, timeout_s=10)
                    try:
                        mine.wait(Ack.PROJECTED, timeout_s=1)
                    except RecorderError as error:
                        status = 0 if "forked from" in str(error) else 2
                    recorder.stop()
                finally:
                    os._exit(status)
            await recorder.record(failed(3)).reached(Ack.REPLICATED)
            assert os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, pid, 0))[1]) == 0
            await recorder.record(failed(4)).reached(Ack.REPLICATED)
        messages = await on_stream(client)
        publishers = {body["publisher"] for body in bodies(messages)}
        assert len(publishers) == 2
        assert sorted(len(assert_chained(messages, publisher)) for publisher in publishers) == [3, 5]
        assert sorted(numbers(messages)) == [1, 2, 3, 4]


async def test_without_a_disk_spooled_is_not_promised_but_replicated_is() -> None:
    async with nats_server() as nats, Recorder(options(nats, None)) as recorder:
        receipt = recorder.record(failed(1))
        with pytest.raises(AckNotProven, match="no spool on disk"):
            await receipt.reached(Ack.SPOOLED)
        await receipt.reached(Ack.REPLICATED)


async def gap_is_exact(nats: EmbeddedNats, database: str, recorder: Recorder, receipts: list[Receipt]) -> None:
    """What was refused is counted on the stream and in the tables, and all else is there."""
    publisher = recorder.publisher
    await until(lambda: all(receipt.pseq or receipt.refused for receipt in receipts), "all are settled")
    refused = sum(receipt.refused is not None for receipt in receipts)
    assert 0 < refused < len(receipts)
    assert recorder.health().refused_events == refused
    with pytest.raises(RecordRefused, match="RELIGHT_"):
        await next(receipt for receipt in receipts if receipt.refused).reached(Ack.SPOOLED)
    await nats.start()
    await drained(recorder)
    await asyncio.to_thread(recorder.stop)
    async with projecting(nats, database) as projected:
        await projected.caught_up()
        found = assert_chained(await on_stream(projected.client), publisher)
        gaps = [body["data"] for body in found if body["type"] == "recorder.gap"]
        assert sum(gap["refused_events"] for gap in gaps) == refused
        assert found[-1]["data"]["refused_events"] == refused
        assert await projected.rows("SELECT refused_events FROM publisher_heads") == [{"refused_events": refused}]
        there = [body["data"]["details"]["n"] for body in found if body["type"] == "breakers.failed"]
        assert there == [n for n, receipt in enumerate(receipts) if receipt.refused is None]


async def test_at_the_cap_on_disk_events_are_refused_counted_and_told(spools: Path, database: str) -> None:
    async with nats_server() as nats:
        await nats.kill()
        recorder = Recorder(options(nats, spools, spool_max_bytes=300_000))
        recorder.start()
        receipts = [recorder.record(failed(n)) for n in range(2_000)]
        await gap_is_exact(nats, database, recorder, receipts)


async def test_at_the_cap_in_memory_events_are_refused_counted_and_told(spools: Path, database: str) -> None:
    async with nats_server() as nats:
        recorder = Recorder(options(nats, spools, memory_max_events=50))
        recorder.start()
        receipts = [recorder.record(failed(n)) for n in range(3_000)]
        await gap_is_exact(nats, database, recorder, receipts)


async def test_content_beyond_the_cap_is_not_kept_and_counted(spools: Path) -> None:
    async with nats_server() as nats:
        await nats.kill()
        recorder = Recorder(options(nats, spools, spool_max_bytes=300_000))
        recorder.start()
        for n in range(10):
            recorder.content(bytes([n]) * 50_000)
            recorder.content(b"same" * 10)
        assert recorder.health().refused_contents >= 6
        await nats.start()
        await until(lambda: recorder.health().exposed_bytes == 0, "the content is stored")
        recorder.content(b"there is room again" * 5_000)
        assert recorder.health().exposed_bytes > 0
        await asyncio.to_thread(recorder.stop)


async def test_nothing_leaves_the_spool_before_retention_and_projection_and_all_but_the_last_then(
    spools: Path, database: str
) -> None:
    async with nats_server() as nats:
        async with Recorder(options(nats, spools, spool_retention_s=0.2)) as recorder:
            await recorder.record(failed(1)).reached(Ack.REPLICATED)
            slot = Spool(spools / "slot-0.db", read_only=True)
            time.sleep(0.5)  # retention passes, and nobody projects
            assert len(slot.pending(0, 10, 1 << 20)) == 2
            async with projecting(nats, database):
                await until(lambda: len(slot.pending(0, 10, 1 << 20)) == 1, "what is projected is evicted")
            assert [event.pseq for event in slot.pending(0, 10, 1 << 20)] == [2]
            slot.close()
        async with projecting(nats, database), Recorder(options(nats, spools, spool_retention_s=600)) as recorder:
            receipt = recorder.record(failed(2))
            await receipt.reached(Ack.PROJECTED)
            assert receipt.pseq == 5


async def test_eviction_is_told_by_projection_acknowledgement_and_age() -> None:
    with stack.folder() as folder:
        spool = Spool(folder / "s.db")
        spool.commit([Spooled(n, f"id{n}", "ev.x", b"{}", "0" * 64, 0) for n in range(1, 11)])
        spool.commit([], acks=[Acked(1, 4, 4, 1_000), Acked(5, 8, 8, 2_000)])
        assert spool.evict(up_to_pseq=10, acked_before_ms=1_000, limit=100) == 0
        assert spool.evict(up_to_pseq=2, acked_before_ms=1_500, limit=100) == 2
        assert spool.evict(up_to_pseq=10, acked_before_ms=1_500, limit=100) == 2
        assert spool.evict(up_to_pseq=10, acked_before_ms=9_000, limit=3) == 3
        assert spool.evict(up_to_pseq=10, acked_before_ms=9_000, limit=100) == 1
        assert [event.pseq for event in spool.pending(0, 10, 1 << 20)] == [9, 10]
        assert (spool.acked_pseq(), spool.head()[0]) == (8, 10)
        spool.close()


async def not_proven(nats: EmbeddedNats, spools: Path, **changes: object) -> str:
    async with Recorder(options(nats, spools, **changes)) as recorder:
        receipt = recorder.record(failed(1))
        with pytest.raises(AckNotProven) as refused:
            await receipt.reached(Ack.REPLICATED)
        return str(refused.value)


async def test_replicated_is_not_promised_by_a_server_that_acknowledges_before_it_fsyncs(spools: Path) -> None:
    async with nats_server(sync_always=False) as nats:
        assert "sync_interval: always" in await not_proven(nats, spools)


async def test_replicated_is_not_promised_where_nobody_can_be_asked(spools: Path) -> None:
    async with nats_server() as nats:
        assert "RELIGHT_NATS_MONITOR_URLS" in await not_proven(nats, spools, nats_monitor_urls=())
        assert "does not answer" in await not_proven(nats, spools, nats_monitor_urls=("http://127.0.0.1:1",))


async def test_replicated_is_not_promised_by_a_stream_in_memory(spools: Path) -> None:
    async with nats_server() as nats:
        client = await connect(nats.url, name="test")
        config = stream_config()
        config.storage = StorageType.MEMORY
        await client.jetstream().add_stream(config=config)
        await client.close()
        assert "not in files" in await not_proven(nats, spools)


async def test_a_duplicate_acknowledgement_of_what_was_purged_is_not_believed() -> None:
    async with nats_server() as nats, connected(nats) as client:
        js = client.jetstream()
        event = Spooled(1, "0190-1", "ev.eu.breakers.acme.failed", b'{"n":1}', "0" * 64, 0)
        first = await publish_one(client, js, event)
        assert await publish_one(client, js, event) == first
        await js.purge_stream(STREAM)
        headers = {"Nats-Msg-Id": event.id}
        assert (await request(client, event.subject, event.body, headers))[1], "this server does not lie any more"
        again = await publish_one(client, js, event)
        assert again > first
        assert (await js.get_msg(STREAM, again)).data == event.body


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
            await until(lambda: _has(client, recorder.publisher, 5), "the rest is drained by the next")


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


def test_a_foreign_file_in_the_spools_place_is_named(spools: Path) -> None:
    spools.mkdir()
    (spools / "slot-0.db").write_bytes(b"not a database" * 100)
    recorder = Recorder(stack.RecorderOptions(nats_url="nats://127.0.0.1:1", region="eu", tenant="acme", spools=spools))
    with pytest.raises(SpoolUnusable, match=r"slot-0\.db"):
        recorder.start()
