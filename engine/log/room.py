"""The caps of a recorder: what waits for the disk and for the stream is counted, and refused beyond them."""

import threading

RESERVED_BYTES = 64 * 1024
"""Of the spool's cap: for `recorder.gap` and `recorder.closed`, so that a full spool can still say so."""


class Room:
    """Counts, from any thread, events that wait for the disk and bytes that wait for the stream."""

    def __init__(self, *, max_waiting_events: int, max_bytes: int, exposed_bytes: int) -> None:
        self._lock = threading.Lock()
        self._max_waiting_events = max_waiting_events
        self._max_bytes = max_bytes
        self.waiting_events = 0
        self.exposed_bytes = exposed_bytes

    def take(self, size: int, *, events: int = 1) -> str | None:
        """Counts an event (or with `events=0` content) of this size; else says which cap is reached."""
        with self._lock:
            if events and self.waiting_events >= self._max_waiting_events:
                return f"{self._max_waiting_events} events wait for the disk (RELIGHT_MEMORY_MAX_EVENTS)"
            if self.exposed_bytes + size > self._max_bytes - RESERVED_BYTES:
                return f"{self._max_bytes} bytes wait for the stream (RELIGHT_SPOOL_MAX_BYTES)"
            self.waiting_events += events
            self.exposed_bytes += size
            return None

    def wrote(self, events: int, more_bytes: int) -> None:
        """Events that were taken are on disk, or given up; they turned out so much bigger than was counted."""
        with self._lock:
            self.waiting_events -= events
            self.exposed_bytes += more_bytes

    def release(self, size: int) -> None:
        """So much has arrived."""
        with self._lock:
            self.exposed_bytes -= size

    @property
    def full(self) -> bool:
        """Only the reserve is left."""
        return self.exposed_bytes > self._max_bytes - 2 * RESERVED_BYTES

    @property
    def exhausted(self) -> bool:
        """The reserve is used up, too."""
        return self.exposed_bytes > self._max_bytes - RESERVED_BYTES // 8
