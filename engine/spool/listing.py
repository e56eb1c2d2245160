"""Every spool of a folder as it lies there, whoever writes it; reads only."""

from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from relight.engine.errors import SpoolUnusable
from relight.engine.spool.aside import ADOPTED, ASIDE, SALVAGED, SLOT, Note, asides, note_path
from relight.engine.spool.locks import is_held
from relight.engine.spool.spool import Spool


class State(StrEnum):
    """What becomes of it."""

    LIVE = "live"
    """a process writes it"""
    LEFT = "left behind"
    """no process holds it: whoever opens it next goes on in it, and until then others drain it"""
    ADOPTED = "adopted"
    """of an identity that is not written on: drained by whoever comes to it"""
    SALVAGED = "salvaged"
    """what could be read of one that was put aside, drained in the same way"""
    ASIDE = "aside"
    """damaged, foreign, newer or unwritable: kept as it was found until somebody retires it"""


class ListedSpool(BaseModel):
    """One file. `events`, `bytes`, `oldest` and `newest` are of what the stream has not acknowledged.

    Of one that was put aside: `unreadable` are the runs of numbers that it does not give; the stream may have them.
    """

    model_config = ConfigDict(frozen=True)

    file: str
    state: State
    publisher: str | None = None
    events: int = 0
    bytes: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None
    disk_bytes: int = 0
    unreadable_events: int = 0
    unreadable: tuple[tuple[int, int], ...] = ()
    trouble: str | None = None


def list_spools(folder: Path) -> list[ListedSpool]:
    """Slots first, by number; then what is adopted, salvaged and aside. Raises `OSError`."""
    if not folder.is_dir():
        return []
    return [*_used(folder), *(_aside(path) for path in asides(folder))]


def _used(folder: Path) -> Iterator[ListedSpool]:
    for path in sorted(folder.glob("*.db"), key=_in_order):
        if not path.name.startswith(ASIDE):
            yield _listed(path)


def _in_order(path: Path) -> tuple[int, int, str]:
    kinds = [SLOT, ADOPTED, SALVAGED]
    kind = next((n for n, prefix in enumerate(kinds) if path.name.startswith(prefix)), len(kinds))
    number = path.stem.removeprefix(SLOT)
    return kind, int(number) if number.isdecimal() else 0, path.name


def _listed(path: Path) -> ListedSpool:
    listed = ListedSpool(file=path.name, state=_state(path), disk_bytes=_disk_bytes(path))
    if not listed.disk_bytes:
        return listed  # a process is just making it
    try:
        spool = Spool(path, read_only=True)
        try:
            exposure = spool.exposure()
            publisher = spool.meta("publisher")
        finally:
            spool.close()
    except SpoolUnusable as error:
        return listed.model_copy(update={"trouble": str(error)})
    return listed.model_copy(
        update={
            "publisher": publisher,
            "events": exposure.events,
            "bytes": exposure.bytes,
            "oldest": _time(exposure.oldest_ms),
            "newest": _time(exposure.newest_ms),
        }
    )


def _state(path: Path) -> State:
    if path.name.startswith(ADOPTED):
        return State.ADOPTED
    if path.name.startswith(SALVAGED):
        return State.SALVAGED
    return State.LIVE if is_held(path) else State.LEFT


def _aside(path: Path) -> ListedSpool:
    note = Note.of(path)
    read = "it was not looked into yet" if note.salvaged is None else f"{note.salvaged_events} events of it were read"
    return ListedSpool(
        file=path.name,
        state=State.ASIDE,
        publisher=note.publisher,
        disk_bytes=_disk_bytes(path) + (note_path(path).stat().st_size if note_path(path).exists() else 0),
        unreadable_events=note.unreadable_events,
        unreadable=note.unreadable,
        trouble=f"{note.why}; {read}",
    )


def _disk_bytes(path: Path) -> int:
    """A part that goes meanwhile takes nothing."""
    size = 0
    for part in (path, path.with_name(f"{path.name}-wal")):
        try:
            size += part.stat().st_size
        except OSError:
            continue
    return size


def _time(unix_ms: int | None) -> datetime | None:
    return None if unix_ms is None else datetime.fromtimestamp(unix_ms / 1_000, UTC)
