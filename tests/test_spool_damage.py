"""Spools that are damaged, foreign or newer: said, put aside untouched, and drained of what is sound."""

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from left_spools import EVENTS, left_behind
from stack import (
    assert_chained,
    bodies,
    connected,
    drained,
    failed,
    nats_server,
    numbers,
    on_stream,
    options,
    projecting,
    until,
)

from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.spool.aside import Note, asides
from relight.engine.spool.spool import Spool
from relight.events.envelope import GENESIS


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
