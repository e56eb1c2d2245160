"""Snapshots that a region has still to prove, the latest first, and since when the stream is to be read again."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from heapq import heappop, heappush

from relight.events.values import Content

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
FEW = 16

Key = tuple[str, str]
"""Tenant and snapshot."""


@dataclass(slots=True, kw_only=True)
class Wanted:
    """A snapshot of which it is not proven yet that the region has it; `seq` and `taken_at` are the stream's."""

    key: Key
    content: Content
    seq: int
    taken_at: datetime
    event: str
    correlation: str
    completed: bool = False
    """The region said before that it has it; it may have lost its disk since."""
    started_at: datetime | None = None
    tries: int = 0
    told: str | None = None
    """The failure that was recorded last."""


@dataclass(slots=True)
class Backlog:
    """Whoever takes one of `due` has to `close` it, or to put it off."""

    since: datetime = BEGINNING
    """All that was taken before is dealt with."""
    _open: dict[Key, Wanted] = field(default_factory=dict)
    _ready: list[tuple[int, Key]] = field(default_factory=list)
    _later: list[tuple[float, int, Key]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._open)

    def get(self, key: Key) -> Wanted | None:
        return self._open.get(key)

    def add(self, wanted: Wanted) -> None:
        """One that is known stays as it is."""
        if wanted.key not in self._open:
            self._open[wanted.key] = wanted
            heappush(self._ready, (-wanted.seq, wanted.key))

    def read_to(self, moment: datetime) -> None:
        """Everything until then was read."""
        if not self._open:
            self.since = moment

    def due(self, now_s: float, most: int) -> Iterator[Wanted]:
        """Up to so many that can be tried now."""
        while self._later and self._later[0][0] <= now_s:
            _, seq, key = heappop(self._later)
            heappush(self._ready, (-seq, key))
        while most > 0 and self._ready:
            wanted = self._open.get(heappop(self._ready)[1])
            if wanted is not None:
                most -= 1
                yield wanted

    def again(self, wanted: Wanted) -> None:
        """It was begun and broken off."""
        if wanted.key in self._open:
            heappush(self._ready, (-wanted.seq, wanted.key))

    def put_off(self, wanted: Wanted, until_s: float) -> None:
        heappush(self._later, (until_s, wanted.seq, wanted.key))

    def close(self, wanted: Wanted) -> None:
        """Nothing more is to be done about it."""
        self._open.pop(wanted.key, None)
        if 0 < len(self._open) <= FEW:
            self.since = max(self.since, min(one.taken_at for one in self._open.values()))
