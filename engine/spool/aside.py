"""Spools that cannot be used as they are: put aside under a telling name, with a note that says what was done."""

import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import uuid_utils
from pydantic import BaseModel, ConfigDict

from relight.engine.errors import SpoolFault
from relight.engine.spool.locks import lock_path

SLOT = "slot-"
ASIDE = "aside-"
ADOPTED = "adopted-"
SALVAGED = "salvaged-"
RETIRED = "retired"
PARTS = ("", "-wal", "-shm")
"""Of a spool. Should we die between them, a WAL without its file is left, and whoever comes next puts that aside."""


class Note(BaseModel):
    """Beside a file that was put aside. `salvaged` stays null until somebody has read what can be read of it.

    `unreadable` are runs of numbers that the file does not give, between the first and the last that it does.
    """

    model_config = ConfigDict(frozen=True)

    file: str
    fault: SpoolFault
    why: str
    moved_at: datetime
    publisher: str | None = None
    salvaged: str | None = None
    salvaged_events: int | None = None
    unreadable: tuple[tuple[int, int], ...] = ()
    last_pseq: int | None = None

    @classmethod
    def of(cls, path: Path) -> Self:
        """What is known of a file that was put aside; its name, where the note is lost."""
        try:
            return cls.model_validate_json(note_path(path).read_bytes())
        except (OSError, ValueError):
            word = path.name.removeprefix(ASIDE).partition("-")[0]
            fault = SpoolFault(word) if word in list(SpoolFault) else SpoolFault.CORRUPT
            moved_at = datetime.fromtimestamp(path.stat().st_mtime, UTC) if path.exists() else datetime.now(UTC)
            return cls(file=path.name, fault=fault, why="its note is lost", moved_at=moved_at)

    @property
    def unreadable_events(self) -> int:
        return sum(last - first + 1 for first, last in self.unreadable)

    def write(self, folder: Path) -> None:
        """In one piece, or not at all. Raises `OSError`."""
        path = note_path(folder / self.file)
        part = path.with_suffix(".part")
        part.write_text(self.model_dump_json(indent=1))
        part.replace(path)


def note_path(aside: Path) -> Path:
    return aside.with_suffix(".json")


def asides(folder: Path) -> list[Path]:
    """Oldest first; of some only the WAL is left."""
    names = {path.name.removesuffix("-shm").removesuffix("-wal") for path in folder.glob(f"{ASIDE}*.db*")}
    return sorted((folder / name for name in names), key=lambda path: path.name[-29:])


def put_aside(path: Path, fault: SpoolFault, why: str, *, publisher: str | None = None) -> Path:
    """Renames a spool's files; nothing is overwritten or deleted. Raises `OSError`."""
    now = datetime.now(UTC)
    name = f"{ASIDE}{fault.value}-{path.stem}-{now:%Y%m%dT%H%M%SZ}-{uuid_utils.uuid4().hex[:8]}.db"
    aside = path.with_name(name)
    rename(path, aside)
    with suppress(OSError):  # on a full disk the name still says the most important thing
        Note(file=aside.name, fault=fault, why=why, moved_at=now, publisher=publisher).write(path.parent)
    return aside


def adopt(path: Path) -> Path:
    """Puts a sound spool whose identity must not be written on where it is drained. Raises `OSError`."""
    adopted = path.with_name(f"{ADOPTED}{uuid_utils.uuid4().hex}.db")
    rename(path, adopted)
    return adopted


def rename(path: Path, to: Path) -> None:
    """All parts of a spool that are there. Raises `OSError`."""
    for suffix in PARTS:
        part = path.with_name(path.name + suffix)
        if os.path.lexists(part):
            part.rename(to.with_name(to.name + suffix))


def retire(path: Path) -> Path:
    """Moves a spool's files, its note included, where nobody looks for work. Raises `OSError`."""
    folder = path.parent / RETIRED
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / f"{path.stem}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid_utils.uuid4().hex[:8]}.db"
    rename(path, target)
    if note_path(path).exists():
        note_path(path).rename(note_path(target))
    if not path.name.startswith(SLOT):  # of a slot somebody may wait for it just now
        lock_path(path).unlink(missing_ok=True)
    return target
