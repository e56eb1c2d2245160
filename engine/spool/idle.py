"""Spools that no live process holds, fully acknowledged ones too: for whoever looks for what the stream has lost."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from relight.engine.errors import SpoolUnusable
from relight.engine.spool.aside import ASIDE
from relight.engine.spool.locks import acquire, release
from relight.engine.spool.slots import Slot
from relight.engine.spool.spool import Spool


def idle(folder: Path) -> Iterator[Slot]:
    """Each locked for the caller, who closes it. What cannot be read is passed over: `relight status` says so."""
    for path in sorted(folder.glob("*.db")):
        if path.name.startswith(ASIDE) or (lock := acquire(path)) is None:
            continue
        slot = None
        with suppress(SpoolUnusable):
            slot = _opened(path, lock)
        if slot is None:
            release(lock)
        else:
            yield slot


def _opened(path: Path, lock: int) -> Slot | None:
    spool = Spool(path)
    try:
        if (publisher := spool.meta("publisher")) is not None:
            return Slot(publisher=publisher, spool=spool, lock=lock)
    except BaseException:
        spool.close()
        raise
    spool.close()
    return None
