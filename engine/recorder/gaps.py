"""What a recorder refused, until `recorder.gap` says so: exactly how many, since when, and why."""

import threading
import time

from relight.engine.clock import Clock
from relight.engine.recorder.room import Room
from relight.events.recorder import RecorderGap

EVERY_S = 1.0
FULL_EVERY_S = 600.0
"""While the spool stays full, gaps come ever more rarely, down to this: they live in its reserve."""


class Refusals:
    """Counts refused events, from any thread."""

    def __init__(self, publisher: str, clock: Clock) -> None:
        self._publisher = publisher
        self._clock = clock
        # A finalizer may record something in the middle of what its own thread does here.
        self._lock = threading.RLock()
        self._gap: RecorderGap | None = None
        self._next_at = 0.0
        self._every_s = EVERY_S
        self.count = 0
        """Since the recorder was opened."""

    def add(self, cause: str, events: int = 1) -> None:
        if not events:
            return
        now = self._clock.now()
        with self._lock:
            self.count += events
            first, refused = (self._gap.first_refused_at, self._gap.refused_events) if self._gap else (now, 0)
            self._gap = RecorderGap(
                publisher=self._publisher,
                refused_events=refused + events,
                first_refused_at=first,
                last_refused_at=now,
                cause=cause,
            )

    def take_over(self, before: "Refusals") -> None:
        """What the recorder's last identity refused and has not said, this one says."""
        with before._lock:
            gap, before._gap = before._gap, None
        if gap is not None:
            with self._lock:
                self.count += gap.refused_events
                self._gap = gap.model_copy(update={"publisher": self._publisher})
            before.count -= gap.refused_events

    def due(self, room: Room, *, at_once: bool) -> RecorderGap | None:
        """What is to be recorded now, if anything; it is then taken for said."""
        if self._gap is None:
            return None
        if not at_once and (room.exhausted or time.monotonic() < self._next_at):
            return None
        self._every_s = min(2 * self._every_s, FULL_EVERY_S) if room.full else EVERY_S
        self._next_at = time.monotonic() + self._every_s
        with self._lock:
            gap, self._gap = self._gap, None
        return gap
