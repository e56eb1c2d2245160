"""An interpreter that exits without a recorder's having been stopped: what was taken is written first.

Not where Python is given no say: SIGKILL, os._exit, and SIGTERM unless somebody handles it. Then what was told SPOOLED
is on disk, and what was taken a moment before may not be.
"""

import atexit
import os
import sys
from typing import Protocol
from weakref import WeakSet

EXIT_S = 2.0
"""How long one that exits is kept for draining."""


class Stoppable(Protocol):
    def stop(self, *, deadline_s: float = 10) -> None: ...


_running: "WeakSet[Stoppable]" = WeakSet()
_registered: set[int] = set()


def stopped_at_exit(recorder: Stoppable) -> None:
    """From now on, in this process."""
    _running.add(recorder)
    # A child of multiprocessing ends without atexit; whoever imported that has its own, which a child begins anew.
    multiprocessing = sys.modules.get("multiprocessing.util")
    if multiprocessing is not None and os.getpid() not in _registered:
        multiprocessing.Finalize(None, _stop_all, exitpriority=0)
        _registered.add(os.getpid())


def _stop_all() -> None:
    for recorder in list(_running):
        recorder.stop(deadline_s=EXIT_S)


atexit.register(_stop_all)
