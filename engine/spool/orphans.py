"""Spools that nobody writes any more and that still hold something: taken to be drained, never written on."""

import logging
from collections.abc import Collection
from pathlib import Path

from relight.engine.errors import SpoolFault, SpoolUnusable
from relight.engine.spool.aside import ASIDE, Note, asides, put_aside
from relight.engine.spool.locks import acquire, release
from relight.engine.spool.salvage import salvage_of
from relight.engine.spool.slots import UNUSABLE_FILE, Slot, inspect
from relight.engine.spool.spool import Spool

log = logging.getLogger(__name__)


def next_orphan(folder: Path, seen: Collection[Path]) -> Slot | None:
    """The first spool with unacknowledged events or content that no live process holds, locked for the caller.

    Not one of `seen`. What cannot be read is put aside. Raises `OSError`.
    """
    for path in sorted(folder.glob("*.db")):
        if path in seen or path.name.startswith(ASIDE):
            continue
        lock = acquire(path)
        if lock is None:
            continue
        slot = None
        try:
            slot = _exposed(path, lock)
        except SpoolUnusable as error:
            put_aside_orphan(path, error)
        finally:
            if slot is None:
                release(lock)
        if slot is not None:
            return slot
    return None


def put_aside_orphan(path: Path, error: SpoolUnusable) -> None:
    """A damaged one, whose lock is held; it is salvaged later. Any other fault is left to whoever comes later."""
    if error.fault in UNUSABLE_FILE - {SpoolFault.READ_ONLY}:
        aside = put_aside(path, error.fault, str(error))
        log.error(
            "%s. It is put aside as %s, and what can be read of it is drained",
            error,
            aside.name,
            extra={"action": "spool_put_aside"},
        )


def salvage_all(folder: Path) -> int:
    """Reads what can be read of files that were put aside into spools of their own, once; how many it did now.

    Raises `OSError`.
    """
    salvaged = 0
    for path in asides(folder):
        if Note.of(path).salvaged is not None:
            continue
        lock = acquire(path)
        if lock is None:
            continue
        try:
            salvage_of(path)
            salvaged += 1
        except SpoolUnusable as error:  # a full disk, say
            log.warning("%s cannot be salvaged yet: %s", path, error, extra={"action": "salvage_later"})
        finally:
            release(lock)
    return salvaged


def _exposed(path: Path, lock: int) -> Slot | None:
    inspect(path)
    if not path.exists() or path.stat().st_size == 0:
        return None
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
