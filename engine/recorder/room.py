"""The caps of a recorder: what waits for the disk and for the stream is counted, and refused beyond them."""

import threading
from collections.abc import Iterable, Mapping

from relight.engine.spool.rows import stored_bytes

EXPECTED_BYTES = 1_500
"""Of an event that is not made yet: what it counts for until then."""
RESERVED_BYTES = 64 * 1024
"""Of the spool's cap: for `recorder.gap` and `recorder.closed`, so that a full spool can still say so."""
PRESSED_EVENTS = 10_000
"""So many waiting, and whoever adds to them has a look at each: what is large in it is better let go."""
UNLOOKED_PART = 64
"""Of what is left below the caps, this part is let in without a look at them."""


class Room:
    """Counts, from any thread, events that wait for the disk and bytes that wait for the stream.

    `exposed` is what lies in the spool already: how many bodies of which size. `exposed_bytes` are bodies; the cap is
    on what they take on disk. With `in_memory` events count as waiting until the stream has them.
    """

    def __init__(
        self, *, max_waiting_events: int, max_bytes: int, exposed: Mapping[int, int], in_memory: bool = False
    ) -> None:
        # A finalizer may record something in the middle of what its own thread does here.
        self._lock = threading.RLock()
        self._max_waiting_events = max_waiting_events
        self._max_bytes = max_bytes
        self._in_memory = in_memory
        self._waiting_events = 0
        self.expected_events = 0
        """Events ever let in before they were made. Added to without the lock, which costs more than all the rest: the
        interpreter lets no other thread in between reading a plain number and writing it back."""
        self.made_events = 0
        self.unlooked_until = 0
        """As long as `expected_events` is below, nobody has to look at the caps."""
        self.pressed_events = PRESSED_EVENTS
        """So many that wait to be made, and somebody looks at each that is added."""
        self.exposed_events = sum(exposed.values())
        self.exposed_bytes = sum(size * count for size, count in exposed.items())
        self._stored_bytes = sum(stored_bytes(size) * count for size, count in exposed.items())
        self.wal_bytes = 0
        """Of a WAL that cannot be cut back, for somebody reads it: they are not there for events."""

    @property
    def waiting_events(self) -> int:
        """For the disk, those that are yet to be made among them."""
        return self._waiting_events + self.expected_events - self.made_events

    def take(self, size: int, *, events: int = 1) -> str | None:
        """Counts an event (or with `events=0` content) of this size; else says which cap is reached."""
        stored = stored_bytes(size)
        with self._lock:
            if reached := self._reached(stored, events):
                return reached
            self._waiting_events += events
            self.exposed_bytes += size
            self._stored_bytes += stored
            self.unlooked_until = 0
            return None

    def expect(self, events: int) -> str | None:
        """Counts events that are yet to be made; else says which cap is reached."""
        if self.expected_events < self.unlooked_until:
            self.expected_events += events
            return None
        with self._lock:
            if reached := self._reached(events * EXPECTED_BYTES, events):
                return reached
            self.expected_events += events
            self.unlooked_until = self.expected_events + self._unlooked()
            return None

    def adopt_expected(self, events: int) -> None:
        """What another recorder's room had let in is yet to be made here, whatever the caps say."""
        self.expected_events += events

    def expected(self, events: int, made: Iterable[int] = ()) -> None:
        """Such events are made, of these sizes, whatever the caps say: they had been let in."""
        with self._lock:
            self.made_events += events
            for size in made:
                self._waiting_events += 1
                self.exposed_bytes += size
                self._stored_bytes += stored_bytes(size)

    def wrote(self, events: Iterable[tuple[int, int]]) -> None:
        """Events are on disk: of each what was counted (0 for the recorder's own) and what its body turned out."""
        with self._lock:
            for counted, size in events:
                self.exposed_events += 1
                self.exposed_bytes += size - counted
                self._stored_bytes += stored_bytes(size)
                if counted:
                    self._waiting_events -= 1
                    self._stored_bytes -= stored_bytes(counted)

    def gave_up(self, counted: Iterable[int]) -> None:
        """Events that were taken are not written here."""
        with self._lock:
            for size in counted:
                self._waiting_events -= 1
                self.exposed_bytes -= size
                self._stored_bytes -= stored_bytes(size)

    def adopt(self, events: Iterable[int], contents: Iterable[int]) -> None:
        """What another recorder's room had counted waits here now, whatever the caps say."""
        with self._lock:
            for sizes, events_each in ((events, 1), (contents, 0)):
                for size in sizes:
                    self._waiting_events += events_each
                    self.exposed_bytes += size
                    self._stored_bytes += stored_bytes(size)

    def release(self, bodies: Iterable[int], *, events: bool) -> None:
        """Events or contents have arrived."""
        with self._lock:
            for size in bodies:
                self.exposed_events -= events
                self.exposed_bytes -= size
                self._stored_bytes -= stored_bytes(size)

    def _reached(self, stored: int, events: int) -> str | None:
        if events and self._counted_events >= self._max_waiting_events:
            return f"{self._max_waiting_events} events wait for the disk (RELIGHT_MEMORY_MAX_EVENTS)"
        if self._used_bytes + stored > self._max_bytes - RESERVED_BYTES:
            return f"{self._max_bytes} bytes wait for the stream (RELIGHT_SPOOL_MAX_BYTES)"
        return None

    def _unlooked(self) -> int:
        """How many events may come before somebody looks at the caps again: a small part of what they leave."""
        events = self._max_waiting_events - self._counted_events
        of_bytes = (self._max_bytes - RESERVED_BYTES - self._used_bytes) // EXPECTED_BYTES
        return max(0, min(min(events, of_bytes) // UNLOOKED_PART, self.pressed_events - self._waiting_to_be_made))

    @property
    def _waiting_to_be_made(self) -> int:
        return self.expected_events - self.made_events

    @property
    def _counted_events(self) -> int:
        return self.waiting_events + self.exposed_events if self._in_memory else self.waiting_events

    @property
    def full(self) -> bool:
        """Only the reserve is left."""
        return self._used_bytes > self._max_bytes - 2 * RESERVED_BYTES

    @property
    def exhausted(self) -> bool:
        """The reserve is used up, too."""
        return self._used_bytes > self._max_bytes - RESERVED_BYTES // 8

    @property
    def _used_bytes(self) -> int:
        return self._stored_bytes + (self.expected_events - self.made_events) * EXPECTED_BYTES + self.wal_bytes
