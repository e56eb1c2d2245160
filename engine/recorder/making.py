"""Makes events of deferred facts, in the writer's thread."""

import logging
from dataclasses import dataclass, field

from pydantic import ValidationError

from relight.engine.clock import Clock
from relight.engine.log.topology import MAX_EVENT_BYTES
from relight.engine.recorder.items import Deferral, Kept, Made, Taken
from relight.engine.recorder.receipts import Receipt
from relight.engine.scope import Scope, scope_in
from relight.engine.spool.rows import SpooledContent
from relight.events.base import Control, Event
from relight.events.envelope import data_json
from relight.events.errors import InvalidEvent

ENVELOPE_BYTES = 16_384
"""More than everything around an event's data can come to."""
TYPICAL_ENVELOPE_BYTES = 600
"""What it comes to as a rule: counted until the event is encoded, lest a burst overshoot the cap tenfold."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Making:
    """What came of one fact; `refused` events were not made."""

    events: list[Taken] = field(default_factory=list)
    contents: list[SpooledContent] = field(default_factory=list)
    refused: int = 0


def checked_json(event: Event) -> bytes:
    """The data of an event that may be recorded. Raises `InvalidEvent` for one that may not."""
    if isinstance(event, Control):
        raise InvalidEvent(f"{event.TYPE} is a ruling: append it to its subject with control.append")
    data = data_json(event)
    if len(data) > MAX_EVENT_BYTES - ENVELOPE_BYTES:
        raise InvalidEvent(f"{event.TYPE} of {event.entity!r} has {len(data)} bytes: put the bulk into content")
    return data


class Maker:
    """Of one recorder: events belong to the fact's scope, and where that names no tenant, to the recorder's."""

    def __init__(self, clock: Clock, tenant: str) -> None:
        self._clock = clock
        self._tenant = tenant

    def made(self, deferral: Deferral) -> Making:
        """All events of a fact; those before a fault are kept, and the rest is refused."""
        make, fact, origin, expected = deferral
        scope = origin if isinstance(origin, Scope) else scope_in(origin)
        making = Making()
        tenant = scope.tenant or self._tenant
        try:
            for made in make(fact):
                if isinstance(made, Kept):
                    making.contents.append(
                        SpooledContent(tenant, made.sha256, made.body, self._clock.now_us() // 1_000)
                    )
                else:
                    making.events.append(self._taken(made, scope, tenant))
        except BaseException as error:  # whatever it raises, this thread has to outlive it
            making.refused = max(1, expected - len(making.events))
            log.error(
                "%d events cannot be recorded: %s: %s",
                making.refused,
                getattr(make, "__qualname__", "a fact"),
                said(error),
                extra={"action": "event_refused"},
            )
        return making

    def _taken(self, made: Made, scope: Scope, tenant: str) -> Taken:
        event = made.event
        data = checked_json(event)
        return Taken(
            receipt=Receipt(None, made.id or self._clock.next_id()),
            type=event.TYPE,
            version=event.written_version,
            entity=event.entity,
            time_us=made.time_us,
            tenant=made.tenant or tenant,
            correlation=scope.correlation,
            causation=made.causation or scope.causation,
            traceparent=made.traceparent or scope.traceparent,
            data=data,
            counted_bytes=len(data) + TYPICAL_ENVELOPE_BYTES,
        )


def said(error: BaseException) -> str:
    """Without what was given: a fact may hold what must not stand in a log."""
    match error:
        case InvalidEvent():
            return str(error)
        case ValidationError():
            fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
            return f"{error.title}: {'.'.join(map(str, fault['loc']))}: {fault['type']}"
        case _:
            return type(error).__qualname__
