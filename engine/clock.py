"""The only reader of the wall clock, and the maker of event ids: a hybrid logical clock in UUIDv7."""

import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from weakref import WeakSet

import uuid_utils

from relight.events.catalog import CLOCK_TOLERANCE_MS, id_ms

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COUNTER_BITS = 12


class Clock:
    """Tells the time and makes ids above all that it made or saw (Kulkarni et al., "Logical Physical Clocks", 2014).

    The 12 bits after the milliseconds count within them, and carry over (RFC 9562, section 6.2, method 1). What is more
    than 60 s ahead of the clock binds nobody, its own past included: a clock that was put back by an hour would
    otherwise make dead letters for an hour.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0
        _clocks.add(self)

    def now_us(self) -> int:
        """Unix microseconds; what a test or a script overrides."""
        return time.time_ns() // 1_000

    def quick_reader(self) -> Callable[[], int]:
        """What reads it in nanoseconds without a frame of its own, where nobody overrides it."""
        if type(self).now_us is Clock.now_us:
            return time.time_ns
        return lambda: self.now_us() * 1_000

    def now(self) -> datetime:
        """Aware, UTC, to the microsecond."""
        return _EPOCH + timedelta(microseconds=self.now_us())

    def next_id(self) -> str:
        """A UUIDv7 above every id that this process made or observed."""
        now_ms = self.now_us() // 1_000
        with self._lock:
            if self._last >> _COUNTER_BITS > now_ms + CLOCK_TOLERANCE_MS:
                self._last = 0
            self._last = last = max(now_ms << _COUNTER_BITS, self._last + 1)
        return make_id(last >> _COUNTER_BITS, last & 0xFFF, str(uuid_utils.uuid4())[19:])

    def observe(self, event_id: str) -> None:
        """Takes note of another's id, so that ours come after it; one far ahead of our clock is not adopted."""
        seen_ms = id_ms(event_id)
        if seen_ms <= self.now_us() // 1_000 + CLOCK_TOLERANCE_MS:
            seen = (seen_ms << _COUNTER_BITS) | int(event_id[15:18], 16)
            with self._lock:
                self._last = max(self._last, seen)


_clocks: "WeakSet[Clock]" = WeakSet()


def _unlock() -> None:
    """In a fork()ed child: another thread of the parent may have held a lock, and that thread is not here."""
    for clock in list(_clocks):
        clock._lock = threading.Lock()


os.register_at_fork(after_in_child=_unlock)


class ScriptedClock(Clock):
    """A clock that stands until it is moved: for scripted days, importers and tests."""

    def __init__(self, start: datetime) -> None:
        super().__init__()
        self._now_us = int((start - _EPOCH) / timedelta(microseconds=1))

    def now_us(self) -> int:
        return self._now_us

    def move_to(self, moment: datetime) -> None:
        self._now_us = int((moment - _EPOCH) / timedelta(microseconds=1))

    def advance(self, seconds: float) -> None:
        self._now_us += round(seconds * 1_000_000)


def make_id(unix_ms: int, counter: int, tail: str) -> str:
    """A UUIDv7 in text; `tail` is its last 17 characters, `vrrr-rrrrrrrrrrrr` with the variant in v."""
    milliseconds = f"{unix_ms:012x}"
    return f"{milliseconds[:8]}-{milliseconds[8:]}-7{counter:03x}-{tail}"


def hashed_tail(sha256: str) -> str:
    """The `tail` of an id that follows from a hash, of which it takes the first 16 hexadecimal digits."""
    return f"{'89ab'[int(sha256[0], 16) % 4]}{sha256[1:4]}-{sha256[4:16]}"
