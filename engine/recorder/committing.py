"""Puts groups on a spool's disk, again and again until each is there, and makes room for them below the cap."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from relight.engine.errors import SpoolFault, SpoolUnusable
from relight.engine.recorder.items import Group
from relight.engine.recorder.room import Room
from relight.engine.spool.rows import Spooled, stored_bytes
from relight.engine.spool.schema import MARGIN_BYTES
from relight.engine.spool.slots import UNUSABLE_FILE, Slot

RETRY_S = 0.25
TRIES = 3
"""For what is no fault of the spool, and so perhaps one of the group."""

log = logging.getLogger(__name__)


class Replaced(Exception):
    """Another thread writes in this one's place."""


class Committer:
    """Of one slot; its figures are read from any thread, its methods called by the writer's."""

    def __init__(self, slot: Slot, room: Room, max_bytes: int) -> None:
        self._slot = slot
        self._room = room
        self._max_bytes = max_bytes
        self.giving_up = threading.Event()
        """What cannot be written now is not tried again."""
        self.evicted_unsealed = 0
        self.safe_pseq = 0
        """Up to it events may leave the spool without being counted as unsealed."""
        self.beats = 0
        """Counts on with each try, and with each group."""
        self.failure: str | None = None
        self.fault: SpoolFault | None = None
        self.failing_since: float | None = None
        """Of time.monotonic."""
        self.damage: SpoolUnusable | None = None
        """What another file in the spool's place would mend."""

    def commit(self, group: Group, still_ours: Callable[[], None]) -> bool:
        """Returns once it is written; False when giving up. Raises `Replaced`, and what is no fault of the spool."""
        spooled = [event for _, event in group.pairs or ()]
        tries = 0
        while True:
            self.beats += 1
            still_ours()
            try:
                # A commit that reported an error may have been written all the same.
                if not ((self.failure or group.doubtful) and self.is_written(spooled)):
                    self._make_room(group, spooled)
                    repeated = self._slot.spool.commit(
                        spooled, group.contents, group.acks, group.copies, before=still_ours
                    )
                    self._room.release(repeated, events=False)
            except Replaced:
                raise
            except Exception as error:
                tries += not isinstance(error, SpoolUnusable)
                if tries >= TRIES:
                    raise
                self._note(error)
                if self.giving_up.wait(RETRY_S):
                    return False
            else:
                self.failure = self.failing_since = self.fault = None
                return True

    def is_written(self, spooled: Sequence[Spooled]) -> bool:
        """Raises `SpoolUnusable`."""
        return bool(spooled) and self._slot.spool.head() == (spooled[-1].pseq, spooled[-1].sha256)

    def cut_wal(self) -> None:
        """Whoever reads a spool for long keeps its WAL from being cut back: what that grows to, events cannot have."""
        if self._room.wal_bytes:
            self._slot.spool.cut_wal()
            self._measure_wal()

    def _note(self, error: Exception) -> None:
        if self.failure is None:
            log.error("spool cannot be written: %s", error, extra={"action": "spool_failed"})
            self.failing_since = time.monotonic()
        self.failure = str(error) or repr(error)
        self.fault = error.fault if isinstance(error, SpoolUnusable) else None
        if isinstance(error, SpoolUnusable) and error.fault in UNUSABLE_FILE:
            self.damage = error

    def _make_room(self, group: Group, spooled: Sequence[Spooled]) -> None:
        """Of a disk that is full as of a cap that is reached: pages that acknowledged rows leave are used again."""
        bodies = [row.body for row in spooled]
        bodies += [content.body for content in group.contents] + [copy.body for copy in group.copies]
        need = sum(stored_bytes(len(body)) for body in bodies)
        if not need:
            return
        spool = self._slot.spool
        self._measure_wal()
        full = self.fault is SpoolFault.FULL
        cap = spool.used_bytes() if full else self._max_bytes - self._room.wal_bytes
        if unsealed := spool.make_room(need, max_bytes=cap, safe_pseq=self.safe_pseq):
            if not self.evicted_unsealed:
                log.warning(
                    "spool %s is full: acknowledged events leave it before they are safe elsewhere",
                    spool.path,
                    extra={"action": "evicted_unsealed"},
                )
            self.evicted_unsealed += unsealed

    def _measure_wal(self) -> None:
        self._room.wal_bytes = max(0, self._slot.spool.wal_bytes() - MARGIN_BYTES)
