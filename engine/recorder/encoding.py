"""Turns what a recorder took into numbered, chained bytes."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from relight.engine.clock import Clock
from relight.engine.log.chain import body_sha256
from relight.engine.recorder.items import Pair, Taken
from relight.engine.recorder.receipts import Receipt
from relight.engine.spool.rows import Spooled
from relight.events.base import Event
from relight.events.envelope import PLATFORM, Head, data_json, encode
from relight.events.subjects import observation_subject, source_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

log = logging.getLogger(__name__)


class Encoder:
    """Of one publisher in one region."""

    def __init__(self, publisher: str, region: str, clock: Clock) -> None:
        self._publisher = publisher
        self._region = region
        self._source = source_of(region, publisher)
        self._clock = clock

    def own(self, event: Event) -> Taken:
        """An event of the recorder's own, about itself; nobody waits for it."""
        return Taken(
            receipt=Receipt(None, self._clock.next_id()),
            type=event.TYPE,
            version=event.written_version,
            entity=event.entity,
            time_us=self._clock.now_us(),
            tenant=PLATFORM,
            correlation=None,
            causation=None,
            traceparent=None,
            data=data_json(event),
        )

    def numbered(self, events: Sequence[Taken], pseq: int, prev: str) -> tuple[list[Pair], list[tuple[Taken, str]]]:
        """The events that follow that head, and with the reason those that cannot be encoded: they take no number."""
        pairs: list[Pair] = []
        refused: list[tuple[Taken, str]] = []
        recorded_ms = self._clock.now_us() // 1_000
        for taken in events:
            try:
                event = self._encoded(taken, pseq + 1, prev, recorded_ms)
            except (ValueError, TypeError, OverflowError) as error:
                # `record` lets no such event through; should one come all the same, it takes no number.
                log.error("event cannot be encoded: %r", error, extra={"action": "event_refused"})
                refused.append((taken, repr(error)))
                continue
            pseq, prev = event.pseq, event.sha256
            pairs.append((taken, event))
        return pairs, refused

    def _encoded(self, taken: Taken, pseq: int, prev: str, recorded_ms: int) -> Spooled:
        # In the order of `Head`; by name it would take three times as long.
        head = Head(
            taken.receipt.id,
            taken.type,
            taken.version,
            taken.entity,
            _EPOCH + timedelta(0, 0, taken.time_us),
            taken.tenant,
            self._region,
            taken.correlation,
            taken.causation,
            taken.traceparent,
        )
        body = encode(
            head, taken.data, source=self._source, publisher=self._publisher, pseq=pseq, prev=prev, ruling=None
        )
        subject = observation_subject(self._region, taken.type, taken.tenant)
        return Spooled(pseq, head.id, subject, body, body_sha256(body), recorded_ms)
