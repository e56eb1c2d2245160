"""Which spool a process writes: slots are bounded by concurrency, and a copied file never lends its identity."""

import errno
import logging
import os
import stat
import uuid
from dataclasses import dataclass
from pathlib import Path

import uuid_utils

from relight.engine.errors import SpoolFault, SpoolUnusable
from relight.engine.spool.aside import SLOT, adopt, put_aside
from relight.engine.spool.locks import acquire, announce, nonces, release
from relight.engine.spool.spool import MEMORY, Acked, Spool

MAX_SLOTS = 4_096
UNUSABLE_FILE = {SpoolFault.CORRUPT, SpoolFault.FOREIGN, SpoolFault.NEWER, SpoolFault.READ_ONLY}
"""What another file in its place would mend; a full or failing disk it would not."""
SQLITE_MAGIC = b"SQLite format 3\x00"

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Slot:
    """A spool under an identity; the lock holds as long as `lock` is open."""

    publisher: str
    spool: Spool
    lock: int | None

    def close(self) -> None:
        self.spool.close()
        if self.lock is not None:
            release(self.lock)
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


def take_slot(folder: Path, *, max_bytes: int | None = None) -> Slot:
    """The lowest slot that no live process holds; whoever held it before, its numbers and chain go on.

    A spool whose file was copied or put back here is put aside under `adopted-…`, to be drained but never written under
    that identity; one that cannot be used, under `aside-…`. Raises `SpoolUnusable` when the disk or the folder cannot
    be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for number in range(MAX_SLOTS):
            path = folder / f"{SLOT}{number}.db"
            lock = acquire(path)
            if lock is None:
                continue
            is_new = not os.path.lexists(path)
            try:
                return _take(path, lock, max_bytes)
            except SpoolUnusable as error:
                release(lock)
                if is_new or error.fault is not SpoolFault.FAILING:
                    raise
                log.error("%s: another slot is taken", error, extra={"action": "slot_failed"})
            except BaseException:
                release(lock)
                raise
    except OSError as error:
        raise SpoolUnusable(
            f"spool folder {folder}: {error.strerror}; make room or make it writable, or set RELIGHT_HOME to another",
            fault=fault_of_folder(error),
        ) from error
    raise SpoolUnusable(f"spool folder {folder}: all {MAX_SLOTS} slots are taken by live processes")


def fault_of_folder(error: OSError) -> SpoolFault:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SpoolFault.FULL
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return SpoolFault.READ_ONLY
    return SpoolFault.FAILING


def _take(path: Path, lock: int, max_bytes: int | None) -> Slot:
    """Opens the slot's file, or a new one in place of a file that cannot be written on."""
    try:
        inspect(path)
        if os.path.lexists(path):
            _check(path)
            if why := _not_at_home(path, lock):
                adopted = adopt(path)
                log.warning(
                    "spool %s %s: it is drained as %s, and a new one is begun",
                    path,
                    why,
                    adopted.name,
                    extra={"action": "spool_adopted"},
                )
        return _open(path, lock, max_bytes)
    except SpoolUnusable as error:
        if error.fault not in UNUSABLE_FILE:
            raise
        say_aside(error, put_aside(path, error.fault, str(error)))
    return _open(path, lock, max_bytes)


def say_aside(error: SpoolUnusable, aside: Path) -> None:
    log.error(
        "%s. It is put aside as %s, and recording goes on in a new spool under a new identity; what can be read of it"
        " is drained. Look at `relight spool list`, and retire it once it is settled",
        error,
        aside.name,
        extra={"action": "spool_put_aside"},
    )


def inspect(path: Path) -> None:
    """Looks at a spool's files before SQLite does, which would delete the WAL of an empty file.

    Raises `SpoolUnusable` when they cannot be a spool of ours as it was left.
    """
    wal = path.with_name(f"{path.name}-wal")
    wal_bytes = wal.stat().st_size if wal.exists() else 0
    if not os.path.lexists(path):
        if wal_bytes:
            raise _corrupt(path, f"is missing, and its WAL of {wal_bytes} bytes is there")
        return
    if not stat.S_ISREG(path.stat().st_mode):
        raise SpoolUnusable(f"{path} is no file", fault=SpoolFault.FOREIGN)
    try:
        with path.open("rb") as file:
            header, size = file.read(100), os.fstat(file.fileno()).st_size
    except PermissionError as error:
        raise SpoolUnusable(f"spool {path}: {error.strerror}", fault=SpoolFault.READ_ONLY) from error
    if size == 0:
        if wal_bytes:
            raise _corrupt(path, f"is empty, and its WAL of {wal_bytes} bytes is there")
        return
    if not header.startswith(SQLITE_MAGIC):
        fault = SpoolFault.FOREIGN if size % 512 and not wal_bytes else SpoolFault.CORRUPT
        raise SpoolUnusable(f"{path} does not begin as an SQLite database does", fault=fault)
    page, pages = int.from_bytes(header[16:18], "big"), int.from_bytes(header[28:32], "big")
    page = 65_536 if page == 1 else page
    counted = header[24:28] == header[92:96]
    if counted and not wal_bytes and pages * page > size:
        raise _corrupt(path, f"has {size} bytes, and was {pages * page} long: it is cut off")


def _corrupt(path: Path, what: str) -> SpoolUnusable:
    return SpoolUnusable(f"spool {path} {what}", fault=SpoolFault.CORRUPT)


def _check(path: Path) -> None:
    """Through a connection that cannot write: closing any other would write the WAL into a damaged file."""
    if path.stat().st_size == 0:
        return
    spool = Spool(path, read_only=True)
    try:
        spool.check()
    finally:
        spool.close()


def _open(path: Path, lock: int, max_bytes: int | None) -> Slot:
    path.touch(mode=0o600)
    spool = Spool(path, max_bytes=max_bytes)
    try:
        publisher = spool.meta("publisher") or new_publisher()
        before, nonce = spool.meta("nonce"), uuid_utils.uuid4().hex
        # Either may be the last thing that is written; only then are both valid.
        announce(lock, [nonce, *([before] if before else [])])
        spool.set_meta({"publisher": publisher, "machine": machine(), "inode": _inode(path), "nonce": nonce})
        announce(lock, [nonce])
    except BaseException:
        spool.close()
        raise
    return Slot(publisher=publisher, spool=spool, lock=lock)


def _not_at_home(path: Path, lock: int) -> str | None:
    """Why its identity must not be written on: it lies elsewhere than where it was written, or is an older state."""
    if path.stat().st_nlink > 1:
        return "has another name, by which another process may write it"
    if path.stat().st_size == 0:
        return None
    spool = Spool(path, read_only=True)
    try:
        if spool.meta("publisher") is None:
            return None
        written_on, inode, nonce = (spool.meta(name) for name in ("machine", "inode", "nonce"))
    finally:
        spool.close()
    if (written_on, inode) not in ((None, None), (machine(), _inode(path))):
        return "was copied here"
    if nonce is not None and nonce not in nonces(lock):
        return "was put back to an older state"
    return None


def _inode(path: Path) -> str:
    status = path.stat()
    return f"{status.st_dev}:{status.st_ino}"


def machine() -> str:
    """What this machine is called by itself."""
    for file in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        if file.exists() and (text := file.read_text().strip()):
            return text
    return f"mac-{uuid.getnode():012x}"
