"""Which spool a process writes: slots are bounded by concurrency, and a copied file never lends its identity."""

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import uuid_utils

from relight.engine.errors import SpoolUnusable
from relight.engine.log.spool import MEMORY, Acked, Spool

MAX_SLOTS = 4_096


@dataclass(kw_only=True)
class Slot:
    """A spool under an identity; the lock holds as long as `lock` is open."""

    publisher: str
    spool: Spool
    lock: int | None

    def close(self) -> None:
        self.spool.close()
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None


def new_publisher() -> str:
    return f"p-{uuid_utils.uuid4().hex}"


def undurable_slot(publisher: str | None = None, *, published_pseq: int = 0) -> Slot:
    """A spool in memory, for hosts without a durable disk and for sources that can be read again.

    Events up to `published_pseq` stand on the stream already: they count as acknowledged before they are written.
    """
    spool = Spool(MEMORY)
    if published_pseq:
        spool.commit([], acks=[Acked(1, published_pseq, 0, 0)])
    return Slot(publisher=publisher or new_publisher(), spool=spool, lock=None)


def take_slot(folder: Path) -> Slot:
    """The lowest slot that no live process holds; whoever held it before, its numbers and chain go on.

    A spool whose file was copied here (other machine or inode) is put aside under `adopted-…`, to be drained but never
    written under that identity. Raises `SpoolUnusable`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for number in range(MAX_SLOTS):
            path = folder / f"slot-{number}.db"
            lock = _lock(path)
            if lock is None:
                continue
            try:
                if path.exists() and not _is_at_home(path):
                    _put_aside(path)
                return _open(path, lock)
            except BaseException:
                os.close(lock)
                raise
    except OSError as error:
        raise SpoolUnusable(
            f"spool folder {folder}: {error.strerror}; make it writable, or set RELIGHT_HOME"
        ) from error
    raise SpoolUnusable(f"spool folder {folder}: all {MAX_SLOTS} slots are taken by live processes")


def orphans(folder: Path) -> Iterator[Slot]:
    """Spools with unacknowledged events that no live process holds, locked for the caller."""
    for path in sorted(folder.glob("*.db")):
        lock = _lock(path)
        if lock is None:
            continue
        slot = None
        with suppress(SpoolUnusable):  # shown by `relight status`; it must not keep this process from recording
            slot = _exposed(path, lock)
        if slot is None:
            os.close(lock)
        else:
            yield slot


def _exposed(path: Path, lock: int) -> Slot | None:
    spool = Spool(path)
    try:
        publisher, exposure = spool.meta("publisher"), spool.exposure()
        if publisher is not None and (exposure.events or exposure.bytes):
            return Slot(publisher=publisher, spool=spool, lock=lock)
    except BaseException:
        spool.close()
        raise
    spool.close()
    return None


def _lock(path: Path) -> int | None:
    descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _open(path: Path, lock: int) -> Slot:
    path.touch(mode=0o600)
    spool = Spool(path)
    publisher = spool.meta("publisher")
    if publisher is None:
        publisher = new_publisher()
        spool.set_meta({"publisher": publisher, "machine": _machine(), "inode": _inode(path)})
    return Slot(publisher=publisher, spool=spool, lock=lock)


def _is_at_home(path: Path) -> bool:
    spool = Spool(path)
    try:
        written = (spool.meta("machine"), spool.meta("inode"))
        return written in ((None, None), (_machine(), _inode(path)))
    finally:
        spool.close()


def _put_aside(path: Path) -> None:
    aside = path.with_name(f"adopted-{uuid_utils.uuid4().hex}.db")
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))


def _inode(path: Path) -> str:
    status = path.stat()
    return f"{status.st_dev}:{status.st_ino}"


def _machine() -> str:
    for file in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        if file.exists() and (text := file.read_text().strip()):
            return text
    return f"mac-{uuid.getnode():012x}"
