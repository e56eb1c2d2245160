"""Counts requests in sliding windows, in this process; where the `limits` library keeps its counters."""

import time
from collections import OrderedDict
from math import floor

from limits.storage.base import SlidingWindowCounterSupport, Storage

MAX_KEYS = 100_000


class Windows(Storage, SlidingWindowCounterSupport):
    """The library's own memory storage starts a thread with almost every count; this one forgets the oldest key."""

    STORAGE_SCHEME = ["relight"]

    def __init__(self) -> None:
        super().__init__()
        self._counts: OrderedDict[tuple[str, int], int] = OrderedDict()

    @property
    def base_exceptions(self) -> type[Exception]:
        return ValueError

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        previous, previous_ttl_s, current, _ = self.get_sliding_window(key, expiry)
        if floor(previous * previous_ttl_s / expiry + current) + amount > limit:
            return False
        slot = (key, int(time.monotonic() / expiry))
        self._counts[slot] = self._counts.get(slot, 0) + amount
        self._counts.move_to_end(slot)
        while len(self._counts) > MAX_KEYS:
            self._counts.popitem(last=False)
        return True

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Count and seconds left of the window before, then of this one."""
        now = time.monotonic() / expiry
        left_s = (1 - now % 1) * expiry
        return self._counts.get((key, int(now) - 1), 0), left_s, self._counts.get((key, int(now)), 0), left_s + expiry

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        self.clear(key)

    def clear(self, key: str) -> None:
        for slot in [slot for slot in self._counts if slot[0] == key]:
            del self._counts[slot]

    def reset(self) -> int | None:
        forgotten = len(self._counts)
        self._counts.clear()
        return forgotten

    def check(self) -> bool:
        return True

    # What is left is for strategies of fixed windows, which `Rates` does not use: the base class demands the names.

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        raise NotImplementedError("fixed windows are not counted here: use SlidingWindowCounterRateLimiter")

    def get(self, key: str) -> int:
        raise NotImplementedError("fixed windows are not counted here: use SlidingWindowCounterRateLimiter")

    def get_expiry(self, key: str) -> float:
        raise NotImplementedError("fixed windows are not counted here: use SlidingWindowCounterRateLimiter")
