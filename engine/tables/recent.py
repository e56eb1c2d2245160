"""The hashes of the latest events, so that another event of the same number is noticed when it comes."""

from collections import deque

REMEMBERED_EVENTS = 20_000
"""A fork within so many is noticed as it comes, any other by an audit."""

Hashes = dict[str, dict[int, str]]
"""By publisher and number."""


class RecentHashes:
    """Forgets the oldest, a batch at a time."""

    def __init__(self, limit: int = REMEMBERED_EVENTS) -> None:
        self._limit = limit
        self._held: Hashes = {}
        self._batches: deque[Hashes] = deque()
        self._events = 0

    def of(self, publisher: str, pseq: int) -> str | None:
        """None where it is not remembered."""
        held = self._held.get(publisher)
        return None if held is None else held.get(pseq)

    def add(self, batch: Hashes) -> None:
        """What is not remembered yet."""
        for publisher, hashes in batch.items():
            self._held.setdefault(publisher, {}).update(hashes)
        self._batches.append(batch)
        self._events += sum(map(len, batch.values()))
        while self._events > self._limit and len(self._batches) > 1:
            self._forget(self._batches.popleft())

    def _forget(self, batch: Hashes) -> None:
        for publisher, hashes in batch.items():
            held = self._held[publisher]
            for pseq in hashes:
                held.pop(pseq, None)
            if not held:
                del self._held[publisher]
            self._events -= len(hashes)
