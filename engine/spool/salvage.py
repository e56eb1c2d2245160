"""Reads what can be read of a spool that was put aside into a new one, from which it is drained."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import uuid_utils

from relight.engine.errors import SpoolFault, SpoolUnusable
from relight.engine.log.chain import body_sha256
from relight.engine.recorder.items import GROUP_EVENTS
from relight.engine.spool.aside import ADOPTED, SALVAGED, Note
from relight.engine.spool.carve import Torn, carve
from relight.engine.spool.rows import Acked, Spooled, SpooledContent
from relight.engine.spool.schema import connect
from relight.engine.spool.spool import READ, Spool

CHUNK = 500
NOTHING = "-"
"""In place of a name: nothing of ours could be read."""
Row = Spooled | SpooledContent | Torn
SOUND = {SpoolFault.NEWER, SpoolFault.READ_ONLY}
"""What is put aside for something else than damage: SQLite can read it, and its acknowledgements are to be believed."""


@dataclass
class Found:
    """What one file holds, by publisher and number, and how far it was acknowledged where that can be believed.

    `rows` gives all of it again: a file may be larger than memory.
    """

    rows: Callable[[], Iterable[Row]]
    numbers: dict[str, set[int]] = field(default_factory=dict)
    contents: int = 0
    torn: set[int] = field(default_factory=set)
    acked_pseq: int | None = None

    def look(self) -> None:
        for row in self.rows():
            match row:
                case Spooled():
                    self.numbers.setdefault(_publisher(row), set()).add(row.pseq)
                case SpooledContent():
                    self.contents += 1
                case Torn():
                    self.torn.add(row.pseq)

    @property
    def publisher(self) -> str | None:
        """A spool has one; a page of another file that was left on the disk does not make another."""
        return max(self.numbers, key=lambda publisher: len(self.numbers[publisher]), default=None)

    @property
    def events(self) -> set[int]:
        return self.numbers[self.publisher] if self.publisher is not None else set()


def salvage_of(path: Path) -> Note:
    """Salvages a file that was put aside, unless that was done before; its lock is held by the caller.

    The file is only read. Raises `SpoolUnusable` (for want of room, say) and `OSError`: then it is tried again later.
    """
    note = Note.of(path)
    if note.salvaged is not None:
        return note
    with _readable(path, note.fault) as found:
        name = f"{SALVAGED if found.acked_pseq is None else ADOPTED}{uuid_utils.uuid4().hex}.db"
        if is_empty := not (found.events or found.contents):
            name = NOTHING
        else:
            _write(path.with_name(name), path.name, found)
        note = note.model_copy(
            update={
                "publisher": found.publisher,
                "salvaged": name,
                "salvaged_events": len(found.events),
                "unreadable": () if is_empty else tuple(_unreadable(found)),
                "last_pseq": max(found.events, default=None),
            }
        )
    note.write(path.parent)
    return note


@contextmanager
def _readable(path: Path, fault: SpoolFault) -> Iterator[Found]:
    """By SQLite where nothing but its being newer or read-only is wrong, else from its bytes."""
    with ExitStack() as stack:
        found = _read_by_sqlite(path, stack) if fault in SOUND else None
        if found is None:
            found = Found(lambda: carve(path))
            found.look()
        yield found


def _read_by_sqlite(path: Path, stack: ExitStack) -> Found | None:
    try:
        copy = stack.enter_context(_copied(path))
        found = Found(copy.rows, acked_pseq=copy.acked_pseq())
        found.look()
    except (SpoolUnusable, OSError):
        return None
    return found


@contextmanager
def _copied(path: Path) -> Iterator["_Copy"]:
    """SQLite would write into the file itself, if only its WAL."""
    copy = path.with_name(f"{path.stem}.copy")
    try:
        for suffix in ("", "-wal"):
            part = path.with_name(path.name + suffix)
            if part.exists():
                target = copy.with_name(copy.name + suffix)
                shutil.copyfile(part, target)
                target.chmod(0o600)
        spool = _Copy(copy)
        try:
            yield spool
        finally:
            spool.close()
    finally:
        _unlink(copy)


class _Copy(Spool):
    """Of a file that may be a newer release's: what we know of it is where it was, and more may be there."""

    def __init__(self, path: Path) -> None:
        self.path, self.durable = path, True
        with self._errors():
            self._db = connect(path, read_only=False)

    def rows(self) -> Iterator[Row]:
        with self._errors():
            for row in self._db.execute(f"{READ} ORDER BY pseq"):
                event = Spooled(*row)
                yield event if body_sha256(event.body) == event.sha256 else Torn(event.pseq)
            yield from self.contents(1 << 62)


def _write(path: Path, aside: str, found: Found) -> None:
    """The whole file, or none: it gets its name at the end."""
    part = path.with_suffix(".part")
    try:
        spool = Spool(part)
        try:
            publisher = found.publisher or "-"
            spool.set_meta({"publisher": publisher, "salvaged_from": aside})
            written = set[int]()
            events, contents = list[Spooled](), list[SpooledContent]()
            for row in found.rows():
                match row:
                    case Spooled() if _publisher(row) == publisher and row.pseq not in written:
                        written.add(row.pseq)
                        events.append(row)
                    case SpooledContent():
                        contents.append(row)
                if len(events) + len(contents) >= CHUNK:
                    spool.commit(events, contents)
                    events, contents = [], []
            spool.commit(events, contents, [Acked(1, found.acked_pseq, 0, 0)] if found.acked_pseq else [])
        finally:
            spool.close()
        os.rename(part, path)
    finally:
        _unlink(part)


def _unlink(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _publisher(event: Spooled) -> str:
    return str(orjson.loads(event.body)["publisher"])


def _unreadable(found: Found) -> Iterable[tuple[int, int]]:
    """Runs of numbers between the first and the last known that no sound row has, and that may not be on the stream."""
    lowest, highest = min(found.events, default=0), max(found.events, default=0)
    # A torn row's number may be torn itself: what lies far off is not believed.
    torn = {pseq for pseq in found.torn if max(0, lowest - GROUP_EVENTS) < pseq < highest + GROUP_EVENTS}
    known = found.events | torn
    if not known:
        return
    expected = max(min(known), (found.acked_pseq or 0) + 1)
    for pseq in [*sorted(pseq for pseq in found.events if pseq >= expected), max(known) + 1]:
        if pseq > expected:
            yield expected, pseq - 1
        expected = pseq + 1
