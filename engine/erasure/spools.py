"""Contents that still wait in a home's spools: which ones, and how they are taken out of those that nobody writes."""

import fcntl
import os
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

BUSY_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolsForgot:
    """How many contents were deleted; in how many spools of live processes some wait, which are dropped as soon as
    these reach the content store; which spools could not be read."""

    deleted: int
    held_by_others: int
    unreadable: tuple[str, ...]


def spooled_contents(folder: Path, tenant: str) -> set[str]:
    """SHA-256 of the tenant's contents that wait in these spools, whoever writes them."""
    found: set[str] = set()
    for path in sorted(folder.glob("*.db")):
        with suppress(sqlite3.Error):  # told by `forget`
            found |= _spooled(path, tenant)
    return found


def forget(folder: Path, tenant: str, contents: Collection[str]) -> SpoolsForgot:
    """Deletes these contents, and overwrites what they took in the file."""
    deleted = held = 0
    unreadable = []
    for path in sorted(folder.glob("*.db")):
        try:
            with _locked(path) as ours:
                if ours:
                    deleted += _forget(path, tenant, contents)
                elif _spooled(path, tenant) & set(contents):
                    held += 1
        except (sqlite3.Error, OSError):
            unreadable.append(path.name)
    return SpoolsForgot(deleted=deleted, held_by_others=held, unreadable=tuple(unreadable))


def _spooled(path: Path, tenant: str) -> set[str]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_S)) as db:
        return {sha256 for (sha256,) in db.execute("SELECT sha256 FROM contents WHERE tenant = ?", (tenant,))}


def _forget(path: Path, tenant: str, contents: Collection[str]) -> int:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=BUSY_S)) as db:
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")
        before = db.total_changes
        db.execute("BEGIN IMMEDIATE")
        db.executemany("DELETE FROM contents WHERE tenant = ? AND sha256 = ?", [(tenant, one) for one in contents])
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return db.total_changes - before


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Whether nobody else holds the spool; nobody does then, as long as the `with` lasts."""
    descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)
