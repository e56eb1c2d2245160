"""The last announcement of every publisher that is heard, as many as are remembered."""

from dataclasses import dataclass, replace

from pydantic import BaseModel, ConfigDict, ValidationError

from relight.engine.regions.heard import Heard
from relight.engine.regions.heartbeats import PUBLISHER, Heartbeat
from relight.events.values import Count

MAX_PUBLISHERS = 10_000
MAX_IDS = 500_000
SETTLED_US = 600_000_000
"""So long a publisher is remembered that ended with nothing missing."""
EVICTED_FROM = 100


class Announcement(BaseModel):
    """What a publisher says of its events; see `Announcer`."""

    model_config = ConfigDict(frozen=True)

    spooled: Count = 0
    acked: Count = 0
    acked_seq: Count = 0
    ids: tuple[str, ...] = ()
    waiting_ids: tuple[str, ...] = ()
    waiting: Count = 0
    durable: bool = True
    place: str | None = None

    @property
    def is_settled(self) -> bool:
        return self.acked >= self.spooled and not self.waiting and not self.waiting_ids


@dataclass(frozen=True, slots=True)
class Known:
    """An announcement, and who made it when."""

    publisher: str
    region: str
    generation: int
    seq: int
    sent_at_us: int
    leaving: bool
    said: Announcement

    @property
    def is_over(self) -> bool:
        """It ended, and nothing was missing."""
        return self.leaving and self.said.is_settled


class Announced:
    """Of all regions; a process that did not hear a publisher knows nothing of it.

    Beyond its bounds those go first that ended with nothing missing; of the others that go `forgotten` is the count,
    and `unnamed` of those whose ids went, while their numbers are kept.
    """

    def __init__(self, heard: Heard, *, max_publishers: int = MAX_PUBLISHERS, max_ids: int = MAX_IDS) -> None:
        self._heard = heard
        self._max_publishers = max_publishers
        self._max_ids = max_ids
        self._last: dict[str, Known] = {}
        self._ids = 0
        self.forgotten = 0
        self.unnamed = 0
        heard.on_heartbeat(self.take)

    def take(self, beat: Heartbeat) -> None:
        """In the recorder's loop."""
        if beat.kind != PUBLISHER:
            return
        try:
            said = Announcement.model_validate(beat.fields)
        except ValidationError:
            self._heard.unreadable += 1
            return
        self._drop(beat.id)
        self._last[beat.id] = Known(
            publisher=beat.id,
            region=beat.region,
            generation=beat.generation,
            seq=beat.seq,
            sent_at_us=beat.sent_at_us,
            leaving=beat.leaving,
            said=said,
        )
        self._ids += _ids(said)
        while len(self._last) > self._max_publishers:
            self._evict()
        if self._ids > self._max_ids:
            self._unname()

    def of(self, region: str, now_us: int) -> list[Known]:
        """Of a region, but for those that ended long ago with nothing missing."""
        return [
            known
            for known in list(self._last.values())
            if known.region == region and not (known.is_over and now_us - known.sent_at_us > SETTLED_US)
        ]

    def last(self, publisher: str) -> Known | None:
        return self._last.get(publisher)

    def silent_ms(self, publisher: str) -> int | None:
        """None where it was never heard."""
        return self._heard.silent_ms(PUBLISHER, publisher)

    def _drop(self, publisher: str) -> None:
        if (gone := self._last.pop(publisher, None)) is not None:
            self._ids -= _ids(gone.said)

    def _evict(self) -> None:
        """Of those that are silent for longest."""
        for publisher in list(self._last)[:EVICTED_FROM]:
            if self._last[publisher].is_over:
                self._drop(publisher)
                return
        self._drop(next(iter(self._last)))
        self.forgotten += 1

    def _unname(self) -> None:
        for publisher, known in list(self._last.items()):
            if self._ids <= self._max_ids:
                return
            if _ids(known.said):
                waiting = known.said.waiting + len(known.said.waiting_ids)
                fewer = known.said.model_copy(update={"ids": (), "waiting_ids": (), "waiting": waiting})
                self._last[publisher] = replace(known, said=fewer)
                self._ids -= _ids(known.said)
                self.unnamed += 1


def _ids(said: Announcement) -> int:
    return len(said.ids) + len(said.waiting_ids)
