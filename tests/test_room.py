"""What a recorder keeps and for how long: caps, what is refused and counted, eviction."""

import asyncio
import time
from pathlib import Path

import pytest
import stack
from stack import (
    assert_chained,
    drained,
    failed,
    nats_server,
    on_stream,
    options,
    projecting,
    until,
)

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.errors import RecordRefused
from relight.engine.log.chain import body_sha256
from relight.engine.log.receipts import Ack, Receipt
from relight.engine.log.recorder import Recorder
from relight.engine.log.spool import Acked, Spool, Spooled


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
        spool.commit([Spooled(n, f"id{n}", "ev.x", b"{}", body_sha256(b"{}"), 0) for n in range(1, 11)])
        spool.commit([], acks=[Acked(1, 4, 4, 1_000), Acked(5, 8, 8, 2_000)])
        assert spool.evict(up_to_pseq=10, acked_before_ms=1_000, limit=100) == 0
        assert spool.evict(up_to_pseq=2, acked_before_ms=1_500, limit=100) == 2
        assert spool.evict(up_to_pseq=10, acked_before_ms=1_500, limit=100) == 2
        assert spool.evict(up_to_pseq=10, acked_before_ms=9_000, limit=3) == 3
        assert spool.evict(up_to_pseq=10, acked_before_ms=9_000, limit=100) == 1
        assert [event.pseq for event in spool.pending(0, 10, 1 << 20)] == [9, 10]
        assert (spool.acked_pseq(), spool.head()[0]) == (8, 10)
        spool.close()
