"""What a recorder keeps and for how long: caps, what is refused and counted, eviction."""

import asyncio
import sqlite3
import time
from pathlib import Path
from typing import Any

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
    service_answers,
    until,
)

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.errors import RecordRefused
from relight.engine.log.chain import body_sha256
from relight.engine.log.watermarks import Answer, Sealed, announcement
from relight.engine.recorder.items import GROUP_BYTES
from relight.engine.recorder.receipts import Ack, Receipt
from relight.engine.recorder.recorder import Recorder
from relight.engine.recorder.room import RESERVED_BYTES
from relight.engine.spool.schema import MARGIN_BYTES
from relight.engine.spool.spool import Acked, ControlCopy, Spool, Spooled, SpooledContent


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


def on_disk(spools: Path) -> int:
    return sum(path.stat().st_size for path in spools.glob("slot-0.db*") if not path.name.endswith("-shm"))


async def test_acknowledged_events_make_room_and_the_file_does_not_grow_beyond_the_cap(spools: Path) -> None:
    """Nobody projects and the retention time is long: they leave unsealed, which is counted; none is refused."""
    cap, most = 4 << 20, 0
    async with nats_server(sync_always=False) as nats:
        async with Recorder(options(nats, spools, spool_max_bytes=cap)) as recorder:
            for n in range(16_000):
                recorder.record(failed(n, "x" * (1 + n % 150)))
                if n % 500 == 0:
                    await drained(recorder)
                    most = max(most, on_disk(spools))
            await drained(recorder)
            health = recorder.health()
            assert (health.refused_events, health.failure) == (0, None)
            slot = Spool(spools / "slot-0.db", read_only=True)
            kept = slot.pending(0, 1 << 20, 1 << 40)
            assert [event.pseq for event in kept] == list(range(kept[0].pseq, 16_002))
            assert health.evicted_unsealed == kept[0].pseq - 1 > 8_000
            assert (3 << 20) < slot.used_bytes() <= cap
            slot.close()
        assert (spools / "slot-0.db").stat().st_size <= cap + RESERVED_BYTES
        assert most <= cap + MARGIN_BYTES


@pytest.mark.parametrize("size", [10, 1_500, 2_200, 4_200, 60_000])
async def test_unacknowledged_events_of_any_size_fill_the_cap_and_no_more(size: int, spools: Path) -> None:
    cap = 4 << 20
    async with nats_server() as nats:
        await nats.kill()
        recorder = Recorder(options(nats, spools, spool_max_bytes=cap))
        recorder.start()
        receipts: list[Receipt] = []
        while not (receipts and receipts[-1].refused):
            big = stack.BreakerFailed(service_name="api", details={str(at): "y" * 999 for at in range(0, size, 1_000)})
            receipts.append(recorder.record(big if size > 1_000 else failed(len(receipts))))
        await until(lambda: all(receipt.pseq or receipt.refused for receipt in receipts), "all are settled")
        slot = Spool(spools / "slot-0.db", read_only=True)
        assert cap // 2 < slot.used_bytes() <= cap
        slot.close()
        assert on_disk(spools) <= cap + MARGIN_BYTES
        assert recorder.health().evicted_unsealed == 0
        await nats.start()
        await drained(recorder)
        assert recorder.record(failed(1)).refused is None
        await asyncio.to_thread(recorder.stop)


async def test_copies_of_control_events_and_contents_count_and_copies_make_room(spools: Path) -> None:
    with stack.folder() as folder:
        spool = Spool(folder / "s.db")
        copies = [ControlCopy("ctl.x.a.b", n, f"id{n}", bytes(3_000), n, n) for n in range(1, 200)]
        spool.commit([], [SpooledContent("acme", body_sha256(b"1" * 100_000), b"1" * 100_000, 0)], copies=copies)
        cap = spool.used_bytes()
        assert cap > 199 * 3_000 + 100_000
        assert spool.make_room(100_000, max_bytes=cap, safe_pseq=0) > 30
        assert spool.used_bytes() <= cap - 100_000
        assert spool.contents(1 << 20)
        spool.close()


async def test_no_caller_waits_while_a_full_spool_makes_room_and_its_disk_is_slow(
    spools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = Spool.commit

    def slow(*arguments: Any, **named: Any) -> Any:
        time.sleep(0.2)
        return committed(*arguments, **named)

    async with nats_server(sync_always=False) as nats:
        async with Recorder(options(nats, spools, spool_max_bytes=4 << 20)) as recorder:
            for n in range(5_000):
                recorder.record(failed(n))
            await drained(recorder)
            monkeypatch.setattr(Spool, "commit", slow)
            took_s = []
            for n in range(4_000):
                event = failed(n)
                began = time.perf_counter()
                recorder.record(event)
                took_s.append(time.perf_counter() - began)
            monkeypatch.undo()
            took_s.sort()
            assert took_s[-len(took_s) // 100] < 0.001
            await drained(recorder)
            assert recorder.health().evicted_unsealed > 0


async def test_a_wal_that_somebody_keeps_from_being_cut_back_takes_from_the_cap(spools: Path) -> None:
    cap = 24 << 20
    async with nats_server(sync_always=False) as nats:
        async with Recorder(options(nats, spools, spool_max_bytes=cap)) as recorder:
            reader = sqlite3.connect(spools / "slot-0.db", isolation_level=None)
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM events").fetchone()
            n, refused = 0, False
            while not refused:
                for _ in range(500):
                    refused = recorder.record(failed(n, "x" * 150)).refused is not None
                    n += 1
                await drained(recorder)
            assert cap < on_disk(spools) <= cap + MARGIN_BYTES + 2 * GROUP_BYTES
            reader.execute("ROLLBACK")
            reader.close()

            async def taken() -> bool:
                await asyncio.sleep(0.1)
                return recorder.record(failed(n)).refused is None

            await until(taken, "events are taken again")


ARCHIVE = "INSERT INTO archives VALUES ($1, 'here', 1, 'm', 1, 1000, 's', 'k', now())"
SEALED = "INSERT INTO sealed_heads VALUES ($1, $2, $3, $4)"


async def test_with_an_archive_what_it_sealed_with_an_equal_hash_leaves_and_nothing_else(
    spools: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relight.engine.recorder.upkeep.EVICT_EVERY_S", 0.1)
    async with (
        nats_server() as nats,
        service_answers(nats, database) as projected,
        Recorder(options(nats, spools, spool_retention_s=0.1)) as recorder,
    ):
        await projected.session.execute(ARCHIVE, "behind")
        for n in range(20):
            recorder.record(failed(n))
        await drained(recorder)
        slot = Spool(spools / "slot-0.db", read_only=True)

        def kept() -> list[int]:
            return [event.pseq for event in slot.pending(0, 100, 1 << 20)]

        await projected.caught_up()
        await asyncio.sleep(0.5)  # projected, and retained for long: but not sealed
        assert kept() == list(range(1, 22))
        await projected.session.execute(SEALED, "behind", recorder.publisher, 10, slot.sha256_at(10))
        await until(lambda: kept() == list(range(11, 22)), "what is sealed leaves")
        await projected.session.execute(ARCHIVE, "other")
        await projected.session.execute(SEALED, "other", recorder.publisher, 15, "f" * 64)
        await until(lambda: "another event as number 15" in (recorder.health().alarm or ""), "it alarms")
        await projected.session.execute("UPDATE sealed_heads SET pseq = 20, sha256 = $1", slot.sha256_at(20))
        await projected.session.execute("UPDATE sealed_heads SET sha256 = 'e' WHERE archive = 'other'")
        await asyncio.sleep(0.5)
        assert kept() == list(range(11, 22))
        await projected.session.execute("UPDATE sealed_heads SET pseq = 99 WHERE archive = 'other'")
        await until(lambda: "holds number 99" in (recorder.health().alarm or ""), "it alarms")
        await projected.session.execute("DELETE FROM sealed_heads WHERE archive = 'other'")
        await until(lambda: kept() == [21], "what is sealed leaves, but for the last")
        assert recorder.health().alarm is None
        assert recorder.health().evicted_unsealed == 0
        slot.close()


def test_answers_of_a_release_before_tell_of_no_archive_and_are_understood() -> None:
    old = Answer.read(b'{"pseq": 7, "dead": {"3": "invalid"}}', 5)
    assert (old.pseq, old.dead, old.reached, old.head, old.archives) == (7, {3: "invalid"}, {5}, None, None)
    told = announcement(7, {}, [5], head=(9, "a" * 64), archives=[Sealed("a", 12, 6, "b" * 64)])
    new = Answer.read(told, 5)
    assert (new.head, new.archives) == ((9, "a" * 64), (Sealed("a", 12, 6, "b" * 64),))
