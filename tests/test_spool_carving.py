"""What is found in a spool's bytes without SQLite: every row, and no other one."""

import os
import random
import shutil
from pathlib import Path

import orjson
from stack import folder

from relight.engine.log.chain import body_sha256
from relight.engine.spool.carve import carve
from relight.engine.spool.salvage import salvage_of
from relight.engine.spool.spool import Spool, Spooled, SpooledContent
from relight.events.envelope import GENESIS


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
