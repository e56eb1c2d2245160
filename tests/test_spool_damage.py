"""Spools that are damaged, foreign, newer or unwritable: said, put aside untouched, and drained of what is sound."""

import asyncio
import json
import logging
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from stack import (
    assert_chained,
    bodies,
    connected,
    drained,
    failed,
    folder,
    nats_server,
    numbers,
    on_stream,
    options,
    projecting,
    until,
)

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.errors import AckNotProven
from relight.engine.log.chain import body_sha256
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.spool.aside import Note, asides
from relight.engine.spool.carve import carve
from relight.engine.spool.salvage import salvage_of
from relight.engine.spool.spool import Spool, Spooled, SpooledContent
from relight.events.envelope import GENESIS

EVENTS = 60


async def left_behind(nats: EmbeddedNats, spools: Path) -> str:
    """A spool of `opened`, `EVENTS` events and `closed` that no server has; gives its publisher."""
    await nats.kill()
    recorder = Recorder(options(nats, spools))
    recorder.start()
    for n in range(EVENTS):
        recorder.record(failed(n))
    await recorder.record(failed(EVENTS)).reached(Ack.SPOOLED)
    wal = (spools / "slot-0.db-wal").read_bytes()
    await asyncio.to_thread(recorder.stop, deadline_s=0.1)
    (spools / "wal").write_bytes(wal)
    await nats.start()
    return recorder.publisher


def header_is_garbage(slot: Path) -> None:
    slot.write_bytes(os.urandom(100) + slot.read_bytes()[100:])


def a_page_is_torn(slot: Path) -> None:
    body = bytearray(slot.read_bytes())
    at = body.index(b'"n":30}') // 4096 * 4096
    body[at + 100 : at + 4096] = os.urandom(3_996)
    slot.write_bytes(body)


def a_page_of_the_tree_is_zeroed(slot: Path) -> None:
    database = sqlite3.connect(slot)
    (root,) = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'events'").fetchone()
    database.close()
    body = bytearray(slot.read_bytes())
    body[(root - 1) * 4096 : root * 4096] = bytes(4_096)
    slot.write_bytes(body)


def it_is_cut_off(slot: Path) -> None:
    os.truncate(slot, slot.stat().st_size - 3 * 4_096)


def it_is_empty_beside_its_wal(slot: Path) -> None:
    slot.with_name("slot-0.db-wal").write_bytes((slot.parent / "wal").read_bytes())
    os.truncate(slot, 0)


def a_byte_of_an_event_is_flipped(slot: Path) -> None:
    body = bytearray(slot.read_bytes())
    body[body.index(b'"n":30}') + 4] ^= 1
    slot.write_bytes(body)


def a_byte_of_the_last_event_is_flipped(slot: Path) -> None:
    body = bytearray(slot.read_bytes())
    body[body.rindex(b"recorded_events") + 2] ^= 1
    slot.write_bytes(body)


def a_byte_of_a_subject_is_flipped(slot: Path) -> None:
    """No hash covers it, but the event's bytes say which it has to be."""
    body = bytearray(slot.read_bytes())
    body[body.rindex(b"ev.eu.breakers.acme.failed", 0, body.index(b'"n":30}')) + 3] ^= 1
    slot.write_bytes(body)


def it_is_of_a_newer_release(slot: Path) -> None:
    database = sqlite3.connect(slot)
    database.execute("UPDATE meta SET value = '2' WHERE name = 'schema_version'")
    database.execute("ALTER TABLE events ADD COLUMN more TEXT")
    database.commit()
    database.close()


DAMAGES = {
    header_is_garbage: "corrupt",
    a_page_is_torn: "corrupt",
    a_page_of_the_tree_is_zeroed: "corrupt",
    it_is_cut_off: "corrupt",
    it_is_empty_beside_its_wal: "corrupt",
    a_byte_of_an_event_is_flipped: "corrupt",
    a_byte_of_the_last_event_is_flipped: "corrupt",
    a_byte_of_a_subject_is_flipped: "corrupt",
    it_is_of_a_newer_release: "newer",
}


@pytest.mark.parametrize(("harm", "fault"), DAMAGES.items(), ids=lambda value: getattr(value, "__name__", value))
async def test_it_is_put_aside_untouched_and_drained_of_what_is_sound(
    harm: Callable[[Path], None], fault: str, spools: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with nats_server() as nats, connected(nats) as client:
        old = await left_behind(nats, spools)
        slot = spools / "slot-0.db"
        harm(slot)
        harmed = slot.read_bytes()
        async with Recorder(options(nats, spools)) as recorder:
            await until(lambda: asides(spools), "it is put aside")
            await until(lambda: recorder.publisher != old, "recording goes on under another identity")
            await recorder.record(failed(1_000)).reached(Ack.REPLICATED)
            [aside] = asides(spools)
            note = await until(lambda: found if (found := Note.of(aside)).salvaged else None, "it is salvaged")
            assert note.fault == fault
            assert aside.name.startswith(f"aside-{fault}-slot-0-")
            assert "slot-0.db" in note.why
            assert aside.read_bytes() == harmed
            lost = {n for first, last in note.unreadable for n in range(first, last + 1)}
            assert note.publisher == old
            assert note.salvaged_events is not None

            async def sound_are_there() -> bool:
                there = {int(b["pseq"]) for b in bodies(await on_stream(client)) if b["publisher"] == old}
                return len(there) == note.salvaged_events

            await until(sound_are_there, "what is sound is on the stream")
            messages = await on_stream(client)
            there = [int(b["pseq"]) for b in bodies(messages) if b["publisher"] == old]
            assert sorted(there) == there
            assert len(set(there)) == len(there)
            assert not lost.intersection(there)
            if harm in (header_is_garbage, it_is_of_a_newer_release, a_page_of_the_tree_is_zeroed):
                assert there == list(range(1, EVENTS + 4))
                assert not lost
            if harm is a_byte_of_a_subject_is_flipped:
                assert set(range(EVENTS + 1)) <= set(numbers(messages))
                assert {message.subject for message in messages} == {
                    "ev.eu.breakers.acme.failed",
                    *(f"ev.eu.recorder.-.{fact}" for fact in ("opened", "closed")),
                }
            if harm is a_byte_of_an_event_is_flipped:
                assert lost == {32}
                assert set(there) == set(range(1, EVENTS + 5)) - {32}  # it showed after `opened` was written
            if harm is it_is_empty_beside_its_wal:
                assert set(range(EVENTS + 1)) <= set(numbers(messages))
            opened = assert_chained(messages, recorder.publisher)[0]
            assert (opened["data"]["predecessor_pseq"], opened["data"]["predecessor_sha256"]) == (0, GENESIS)
        assert any("put aside" in record.getMessage() and "slot-0" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("kind", ["text", "database", "folder"])
async def test_what_is_no_spool_is_put_aside_and_left_as_it_is(kind: str, spools: Path) -> None:
    spools.mkdir()
    slot = spools / "slot-0.db"
    match kind:
        case "text":
            slot.write_bytes(b"not a database" * 100)
        case "folder":
            slot.mkdir()
            (slot / "file").write_bytes(b"somebody's")
        case _:
            database = sqlite3.connect(slot)
            database.execute("CREATE TABLE mine (n)")
            database.commit()
            database.close()
    before = slot.read_bytes() if slot.is_file() else b""
    async with nats_server() as nats, Recorder(options(nats, spools)) as recorder:
        await recorder.record(failed(1)).reached(Ack.REPLICATED)
        [aside] = asides(spools)
        assert aside.name.startswith("aside-foreign-slot-0-")
        note = await until(lambda: found if (found := Note.of(aside)).salvaged else None, "it was looked into")
        assert (note.salvaged, note.salvaged_events, note.unreadable) == ("-", 0, ())
        assert aside.is_dir() if kind == "folder" else aside.read_bytes() == before


async def test_damage_that_shows_while_recording_moves_it_to_another_spool_and_loses_nothing_taken(
    spools: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with nats_server() as nats, connected(nats) as client:
        async with Recorder(options(nats, spools)) as recorder:
            await recorder.record(failed(0)).reached(Ack.REPLICATED)
            old = recorder.publisher
            await nats.kill()
            for n in range(1, 400):
                recorder.record(failed(n))
            await recorder.record(failed(400)).reached(Ack.SPOOLED)
            checkpointing = sqlite3.connect(spools / "slot-0.db")
            checkpointing.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            checkpointing.close()
            with (spools / "slot-0.db").open("r+b") as file:
                body = file.read()
                file.seek(body.index(b'"n":200}') + 4)
                file.write(b"7")
            await nats.start()
            receipts = []
            while recorder.publisher == old:
                receipts.append(recorder.record(failed(1_000 + len(receipts))))
                await asyncio.sleep(0.005)
            receipts.append(recorder.record(failed(1_000 + len(receipts))))
            for receipt in receipts[-2:]:
                await receipt.reached(Ack.SPOOLED)
            await receipts[-1].reached(Ack.REPLICATED)
            assert not any(receipt.refused for receipt in receipts)
            wanted = {*range(401), *range(1_000, 1_000 + len(receipts))} - {200}

            async def all_there() -> bool:
                return set(numbers(await on_stream(client))) == wanted

            await until(all_there, "all but the flipped one are there")
            [aside] = asides(spools)
            assert Note.of(aside).unreadable == ((202, 202),)
            assert recorder.health().refused_events == 0
            assert recorder.health().recorded_events >= len(wanted)
        found = numbers(await on_stream(client))
        assert len(found) == len(set(found))


async def test_what_was_drained_before_is_not_sent_again_from_a_damaged_spool(spools: Path, database: str) -> None:
    async with nats_server() as nats, projecting(nats, database) as projected:
        async with Recorder(options(nats, spools)) as recorder:
            for n in range(50):
                recorder.record(failed(n))
            await drained(recorder)
        old = recorder.publisher
        await projected.caught_up()
        edited = sqlite3.connect(spools / "slot-0.db")
        edited.execute("UPDATE events SET recorded_ms = recorded_ms - 600000")  # longer ago than the stream remembers
        edited.commit()
        edited.close()
        header_is_garbage(spools / "slot-0.db")
        js = projected.client.jetstream()
        config = (await js.stream_info("EV")).config
        config.duplicate_window = 0.1
        await js.update_stream(config=config)
        time.sleep(0.3)
        async with Recorder(options(nats, spools)) as recorder:
            assert recorder.publisher != old
            [aside] = asides(spools)
            note = await until(lambda: found if (found := Note.of(aside)).salvaged else None, "it is salvaged")
            assert note.salvaged_events == 52
            recorder.record(failed(1_000))
            await drained(recorder)
            salvaged = Spool(spools / note.salvaged, read_only=True)
            await until(lambda: salvaged.exposure().events == 0, "the salvaged spool is drained")
            salvaged.close()
        assert numbers(await on_stream(projected.client)) == [*range(50), 1_000]


@contextmanager
def small_disk(mebibytes: int) -> Iterator[Path]:
    """A file system of its own, which can be filled."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    with folder() as there:
        mounting = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(there)]
        if subprocess.run(mounting, check=False, capture_output=True).returncode:
            pytest.skip("file systems cannot be mounted here")
        try:
            yield there
        finally:
            subprocess.run(["umount", "-l", str(there)], check=True)


def fill(disk: Path) -> Path:
    """Leaves nothing free."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass
        try:
            while True:
                file.write(b"0")
        except OSError:
            pass
    return ballast


async def test_on_a_disk_that_is_full_at_opening_recording_goes_on_in_memory_and_then_on_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("relight.engine.recorder.watchdog.BACK_S", 0.2)
    with small_disk(32) as disk:
        async with nats_server() as nats, connected(nats) as client:
            (disk / "spool").mkdir()
            ballast = fill(disk)
            async with Recorder(options(nats, disk / "spool", memory_max_events=500)) as recorder:
                assert "full" in (recorder.health().spool_fault or "")
                with pytest.raises(AckNotProven, match="no spool on disk"):
                    await recorder.record(failed(0)).reached(Ack.SPOOLED)
                await recorder.record(failed(1)).reached(Ack.REPLICATED)
                in_memory = recorder.publisher
                await nats.kill()
                receipts = [recorder.record(failed(n)) for n in range(2, 1_002)]
                refused = [receipt for receipt in receipts if receipt.refused]
                assert 450 < len(refused) < 550
                assert "RELIGHT_MEMORY_MAX_EVENTS" in (refused[0].refused or "")
                ballast.unlink()
                await until(lambda: recorder.publisher != in_memory, "there is a spool on disk again")
                assert recorder.health().spool_fault is None
                await recorder.record(failed(5_000)).reached(Ack.SPOOLED)
                await nats.start()
                kept = {0, 1, 5_000, *(n for n, receipt in enumerate(receipts, 2) if not receipt.refused)}

                async def all_there() -> bool:
                    return set(numbers(await on_stream(client))) == kept

                await until(all_there, "what was taken is there")
                assert recorder.health().refused_events == len(refused)
            gaps = [b["data"]["refused_events"] for b in bodies(await on_stream(client)) if b["type"] == "recorder.gap"]
            assert sum(gaps) == len(refused)


async def test_on_a_disk_that_becomes_full_recording_goes_on_in_memory_and_nothing_taken_is_lost_or_doubled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("relight.engine.recorder.watchdog.FAILING_S", 0.5)
    monkeypatch.setattr("relight.engine.recorder.watchdog.BACK_S", 0.2)
    with small_disk(32) as disk:
        async with nats_server() as nats, connected(nats) as client:
            async with Recorder(options(nats, disk / "spool")) as recorder:
                on_disk = recorder.publisher
                await recorder.record(failed(0)).reached(Ack.REPLICATED)
                await nats.kill()
                for n in range(1, 100):
                    recorder.record(failed(n))
                await recorder.record(failed(100)).reached(Ack.SPOOLED)
                ballast = fill(disk)
                total = 101
                while recorder.publisher == on_disk:
                    recorder.record(failed(total))
                    total += 1
                    await asyncio.sleep(0.001)
                assert "full" in (recorder.health().spool_fault or "")
                await nats.start()
                await recorder.record(failed(total)).reached(Ack.REPLICATED)  # straight from memory
                total += 1
                ballast.unlink()
                await until(lambda: recorder.health().spool_fault is None, "there is room again")
                receipt = recorder.record(failed(total))
                await receipt.reached(Ack.SPOOLED)

                async def all_there() -> bool:
                    return sorted(numbers(await on_stream(client))) == list(range(total + 1))

                await until(all_there, "each is there once")


def hemmed_in(command: list[str]) -> list[str]:
    """Root heeds no permissions unless its capability to override them is taken away."""
    if os.geteuid() != 0:
        return command
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed here, and root heeds no permissions")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", *command]


def told(nats: EmbeddedNats, spools: Path) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).with_name("spooling_child.py")), nats.url, str(spools), "told"]
    done = subprocess.run(hemmed_in(command), capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout, done.stderr
    return {"stderr": done.stderr, **json.loads(done.stdout)}


async def test_in_a_folder_that_cannot_be_written_events_are_held_in_memory_and_that_is_said(spools: Path) -> None:
    spools.mkdir()
    spools.chmod(0o555)
    async with nats_server() as nats, connected(nats) as client:
        said = await asyncio.to_thread(told, nats, spools)
        assert "Permission denied" in said["spool_fault"]
        assert str(spools) in said["stderr"]
        assert numbers(await on_stream(client)) == [0]
    spools.chmod(0o755)
    assert list(spools.iterdir()) == []


async def test_a_file_that_cannot_be_written_is_put_aside_and_drained_with_what_was_acknowledged(spools: Path) -> None:
    async with nats_server() as nats, connected(nats) as client:
        old = await left_behind(nats, spools)
        (spools / "slot-0.db").chmod(0o444)
        before = (spools / "slot-0.db").read_bytes()
        said = await asyncio.to_thread(told, nats, spools)
        assert said["publisher"] != old
        assert said["spool_fault"] is None
        [aside] = asides(spools)
        assert aside.name.startswith("aside-readonly-slot-0-")
        assert aside.read_bytes() == before
        async with Recorder(options(nats, spools)):
            await until(lambda: Note.of(aside).salvaged, "it is salvaged")

            async def all_there() -> bool:
                return len([b for b in bodies(await on_stream(client)) if b["publisher"] == old]) == EVENTS + 3

            await until(all_there, "it is drained")


def spooled(n: int, prev: str, size: int) -> Spooled:
    document = {"publisher": "p-test", "pseq": str(n), "prev": prev, "data": "z" * size}
    body = orjson.dumps(document)
    return Spooled(n, f"id-{n}", "ev.eu.x.acme.y", body, body_sha256(body), n)


def a_spool(path: Path) -> tuple[dict[int, Spooled], SpooledContent]:
    """Some of it in the file, the rest in its WAL, small rows and such as take several pages."""
    chance = random.Random(7)
    spool, written, prev = Spool(path), {}, GENESIS
    content = SpooledContent("acme", body_sha256(b"c" * 30_000), b"c" * 30_000, 1)
    for n in range(1, 121):
        written[n] = spooled(n, prev, chance.choice([10, 300, 3_000, 5_000, 20_000]))
        prev = written[n].sha256
        spool.commit([written[n]], [content] if n == 90 else [])
        if n == 60:
            spool.cut_wal()
    for suffix in ("", "-wal"):
        shutil.copy(path.with_name(path.name + suffix), path.with_name(f"aside-corrupt-x.db{suffix}"))
    spool.close()
    return written, content


def test_every_row_is_found_in_file_and_wal_without_a_header_or_a_tree() -> None:
    with folder() as there:
        written, content = a_spool(there / "slot-0.db")
        aside = there / "aside-corrupt-x.db"
        with aside.open("r+b") as file:
            file.write(os.urandom(3_000))
        note = salvage_of(aside)
        assert (note.publisher, note.salvaged_events, note.unreadable, note.last_pseq) == ("p-test", 120, (), 120)
        salvaged = Spool(there / str(note.salvaged), read_only=True)
        assert {event.pseq: event for event in salvaged.pending(0, 1_000, 1 << 30)} == written
        assert salvaged.contents(1 << 30) == [content]
        assert salvaged.meta("salvaged_from") == aside.name
        salvaged.close()


def test_whatever_byte_is_flipped_no_other_event_comes_out_than_was_written() -> None:
    chance = random.Random(11)
    with folder() as there:
        written, content = a_spool(there / "slot-0.db")
        aside = there / "aside-corrupt-x.db"
        parts = [aside, aside.with_name(f"{aside.name}-wal")]
        originals = [part.read_bytes() for part in parts]
        fewest = len(written)
        for _ in range(150):
            which = chance.randrange(2)
            flipped = bytearray(originals[which])
            flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
            parts[which].write_bytes(flipped)
            found: dict[int, Spooled] = {}
            for row in carve(aside):
                match row:
                    case Spooled():
                        assert row.body == written[row.pseq].body
                        found[row.pseq] = row
                    case SpooledContent():
                        assert row.body == content.body
            fewest = min(fewest, len(found))
            parts[which].write_bytes(originals[which])
        assert fewest > len(written) - 20  # a page's header may cost all that is on it
