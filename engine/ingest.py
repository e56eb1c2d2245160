"""Events from outside: CloudEvents of any language's SDK, validated by the same models and recorded here."""

import asyncio
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from relight.engine import scope
from relight.engine.clock import hashed_tail, make_id
from relight.engine.errors import AckNotProven, AckTimeout, IngestRefused
from relight.engine.recorder.receipts import Ack, Receipt
from relight.engine.recorder.recorder import Recorder
from relight.events.base import Control, Event
from relight.events.catalog import CLOCK_TOLERANCE_MS, event_types, id_ms
from relight.events.envelope import Number, Traceparent
from relight.events.errors import InvalidEvent
from relight.events.values import EventId, Key, Name, Time

MAX_EVENTS = 1_000
"""Of one request."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_TOLERANCE = timedelta(milliseconds=CLOCK_TOLERANCE_MS)
CHECKED_AT_ONCE = 50
"""Events, some milliseconds: how long a batch of one sender keeps the others waiting."""
_ids = TypeAdapter(EventId)

Attribute = Annotated[str, StringConstraints(min_length=1, max_length=1_000, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Incoming(BaseModel):
    """A CloudEvents 1.0 document as a client sends it; an attribute that could not be kept is refused, never dropped.

    `id` and `source` name the event: sending it again adds nothing. An `id` that is a UUIDv7 is kept; of any other one
    is derived, which needs `time`. `dataversion` is that of `data`, by default the current one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    specversion: Literal["1.0"]
    id: Attribute
    source: Attribute
    type: Attribute
    subject: Key | None = None
    time: Time | None = None
    datacontenttype: Literal["application/json"] | None = None
    dataversion: int | None = None
    tenant: Name | None = None
    region: Name | None = None
    correlationid: Key | None = None
    causationid: EventId | None = None
    traceparent: Traceparent | None = None
    data: dict[str, Any] = Field(default_factory=dict)


class IncomingRuling(Incoming):
    """A ruling as a client sends it: `after` is the revision that the decision rests on, 0 where there is none yet."""

    after: Number
    policyversion: Key
    observedseq: Number = 0


class Accepted(BaseModel):
    """An event that was taken: the id under which it stands in the tables, and what to wait for (`wait=receipt`)."""

    id: str
    receipt: str
    ack: Ack


T = TypeVar("T", bound=Incoming)


class Ingest:
    """Takes events for `tenant`s into one recorder."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def take(
        self, documents: Sequence[object], *, tenant: str, ack: Ack = Ack.REPLICATED, timeout_s: float | None = None
    ) -> list[Accepted]:
        """Records all of them in order, or none, and waits until `ack` is certain of each.

        `documents`: parsed JSON. Raises `IngestRefused` naming the event and its field, and what `Receipt.reached`
        raises: they are recorded then, but not as certain as asked. Only for want of space may some of them be
        recorded and others not; sending all of them again adds what is missing.
        """
        receipts = await self._record(documents, tenant)
        await asyncio.gather(*(receipt.reached(ack, timeout_s=timeout_s) for receipt in receipts))
        return [Accepted(id=receipt.id, receipt=receipt.token, ack=ack) for receipt in receipts]

    async def record(self, documents: Sequence[object], *, tenant: str) -> None:
        """`take` for senders who wait for no answer: returns once all are on this machine's disk, if it has a spool.

        Raises `IngestRefused`, `RecordRefused`.
        """
        receipts = await self._record(documents, tenant)
        for told in await asyncio.gather(*(r.reached(Ack.SPOOLED) for r in receipts), return_exceptions=True):
            if isinstance(told, BaseException) and not isinstance(told, AckNotProven | AckTimeout):
                raise told

    async def _record(self, documents: Sequence[object], tenant: str) -> list[Receipt]:
        if not 1 <= len(documents) <= MAX_EVENTS:
            raise IngestRefused(f"1 to {MAX_EVENTS} events are taken at once, not {len(documents)}: send them in parts")
        ready = []
        for number, document in enumerate(documents):
            if number % CHECKED_AT_ONCE == CHECKED_AT_ONCE - 1:
                await asyncio.sleep(0)
            try:
                ready.append(checked(Incoming, document, self._recorder, tenant))
            except IngestRefused as error:
                if len(documents) == 1:
                    raise
                raise IngestRefused(f"event {number}: {error}; none was recorded") from None
        # Without a pause, so that a batch stands in order and nothing comes between.
        return [self._recorded(incoming, event, id, tenant) for incoming, event, id in ready]

    def _recorded(self, incoming: Incoming, event: Event, id: str, tenant: str) -> Receipt:
        moment = incoming.time or _EPOCH + id_ms(id) * _MILLISECOND
        with scope.entered(
            tenant=tenant,
            correlation=incoming.correlationid,
            causation=incoming.causationid,
            traceparent=incoming.traceparent,
        ):
            self._recorder.clock.observe(id)
            return self._recorder.record(event, id=id, time=moment)


def checked(kind: type[T], document: object, recorder: Recorder, tenant: str) -> tuple[T, Event, str]:
    """What was sent, its fact and its id. Raises `IngestRefused` naming the field."""
    try:
        incoming = kind.model_validate(document)
        event = _event(incoming)
        _same("tenant", incoming.tenant, tenant)
        _same("region", incoming.region, recorder.options.region)
        _same("subject", incoming.subject, event.entity)
        now = recorder.clock.now()
        if incoming.time is not None and not _EPOCH <= incoming.time <= now + _TOLERANCE:
            raise IngestRefused("time: before 1970, or more than 60 s ahead of the clock here; set the sender's clock")
        id = event_id(tenant, incoming)
        if id_ms(id) > (now - _EPOCH) // _MILLISECOND + CLOCK_TOLERANCE_MS:
            raise IngestRefused("id: more than 60 s ahead of the clock here; set the sender's clock")
    except ValidationError as error:
        raise IngestRefused(_fault(error)) from None
    except InvalidEvent as error:
        raise IngestRefused(str(error)) from None
    return incoming, event, id


def event_id(tenant: str, incoming: Incoming) -> str:
    """The event's UUIDv7: its own, else one that follows from whose it is, `source`, `id` and `time` alone.

    Raises `IngestRefused` when there is nothing to make it of.
    """
    try:
        return _ids.validate_python(incoming.id)
    except ValidationError:
        pass
    if incoming.time is None:
        raise IngestRefused("time: needed where the id is no UUIDv7, so that sending the event again adds nothing")
    named = "\x00".join((tenant, incoming.source, incoming.id))
    digest = hashlib.sha256(named.encode()).hexdigest()
    tail = hashed_tail(digest)
    return make_id((incoming.time - _EPOCH) // _MILLISECOND, int(digest[16:19], 16), tail)


def _event(incoming: Incoming) -> Event:
    cls = event_types().get(incoming.type)
    if cls is None or incoming.type.startswith("recorder."):
        raise IngestRefused(f"type: {incoming.type[:80]!r} is no event that can be sent; see the API's list of types")
    if issubclass(cls, Control) and not isinstance(incoming, IncomingRuling):
        raise IngestRefused(f"type: {incoming.type} is a ruling, which is appended after another one: send it as such")
    if not issubclass(cls, Control) and isinstance(incoming, IncomingRuling):
        raise IngestRefused(
            f"type: {incoming.type} is an observation, which is appended after nothing: send it as such"
        )
    version = cls.VERSION if incoming.dataversion is None else incoming.dataversion
    if not 1 <= version <= cls.VERSION:
        raise IngestRefused(f"dataversion: {version} of {incoming.type}; there is 1 to {cls.VERSION}")
    data: dict[str, Any] = incoming.data
    try:
        for step in range(version, cls.VERSION):
            data = cls.UPCASTS[step](data)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise IngestRefused(
            f"data: version {version} of {incoming.type} cannot be raised to {cls.VERSION} ({type(error).__name__})"
        ) from None
    try:
        return cls.model_validate_json(orjson.dumps(data))
    except ValidationError as error:
        raise IngestRefused(f"data.{_fault(error)}") from None
    except (TypeError, ValueError):
        raise IngestRefused(
            "data: a value in it cannot be carried, a lone surrogate or an integer beyond 64 bits"
        ) from None


def _same(attribute: str, said: str | None, here: str) -> None:
    if said is not None and said != here:
        raise IngestRefused(
            f"{attribute}: {said!r}, but {here!r} is what this is sent for; leave it away or correct it"
        )


def _fault(error: ValidationError) -> str:
    """The first fault, by field, without the value: it may be a secret."""
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in fault["loc"]) or "event"
    if fault["type"] == "extra_forbidden":
        return f"{where}: there is no place for it; put it into data, or leave it away"
    return f"{where}: {fault['msg']}"
