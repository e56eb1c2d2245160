"""The CloudEvents 1.0 document around a fact: written once, hashed, spooled, published and replayed as these bytes."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Generic, Literal, NamedTuple, TypeVar

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from relight.events.base import Event
from relight.events.subjects import control_subject, observation_subject
from relight.events.values import MAX_INTEGER, EventId, Key, Name, Sha256, Time

CONTENT_TYPE = "application/cloudevents+json"
GENESIS = "0" * 64
"""`prev` of a publisher's first event."""
PLATFORM = "-"
"""The tenant of what belongs to the platform itself."""

T_co = TypeVar("T_co", bound=Event, covariant=True)


def _integer(value: object) -> object:
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        return int(value[:20])
    if isinstance(value, bool | str):
        raise ValueError("neither an integer nor decimal text")
    return value


Number = Annotated[int, BeforeValidator(_integer), Field(ge=0, le=MAX_INTEGER)]
"""CloudEvents integers end at 2^31, so ours travel as decimal text; a number is accepted too."""
PublisherId = Annotated[str, StringConstraints(min_length=1, max_length=1_500, pattern=r"^[^\x00-\x20\x7f]+$")]
Traceparent = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")]


class Recorded(BaseModel, Generic[T_co]):
    """A fact as it stands on the stream; attribute names are the CloudEvents ones.

    `pseq` counts the publisher's events from 1 and `prev` is the SHA-256 of its previous one's bytes. On control
    events the publisher is the subject and `rev` = `pseq` is the revision of what the subject rules on.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    specversion: Literal["1.0"]
    id: EventId
    source: Annotated[str, StringConstraints(min_length=1, max_length=4_000, pattern=r"^[^\x00-\x20\x7f]+$")]
    type: str
    subject: str
    time: Time
    tenant: Name
    region: Name
    dataversion: int
    correlationid: Key | None = None
    causationid: EventId | None = None
    traceparent: Traceparent | None = None
    publisher: PublisherId
    pseq: Annotated[Number, Field(ge=1)]
    prev: Sha256
    rev: Annotated[Number, Field(ge=1)] | None = None
    policy: str | None = None
    policyversion: Key | None = None
    decidedat: Time | None = None
    observedseq: Number | None = None
    data: T_co

    @property
    def is_control(self) -> bool:
        return self.rev is not None

    @property
    def nats_subject(self) -> str:
        """The one subject on which this event may stand."""
        if self.data.POLICY is not None:
            return control_subject(self.data.POLICY, self.tenant, self.data.entity)
        return observation_subject(self.region, self.type, self.tenant)


class Head(NamedTuple):
    """Everything of an event that is not its data, before its publisher numbers it."""

    id: str
    type: str
    version: int
    entity: str
    time: datetime
    tenant: str
    region: str
    correlationid: str | None = None
    causationid: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What a control event says about how it came to be."""

    rev: int
    policy: str
    policyversion: str
    decidedat: datetime
    observedseq: int


def encode(
    head: Head, data: bytes, *, source: str, publisher: str, pseq: int, prev: str, ruling: Ruling | None
) -> bytes:
    """The exact bytes of an event; `data` is its JSON. Absent attributes are left out, as CloudEvents asks."""
    document: dict[str, object] = {
        "specversion": "1.0",
        "id": head.id,
        "source": source,
        "type": head.type,
        "subject": head.entity,
        "time": rfc3339(head.time),
        "tenant": head.tenant,
        "region": head.region,
        "dataversion": head.version,
    }
    if head.correlationid is not None:
        document["correlationid"] = head.correlationid
    if head.causationid is not None:
        document["causationid"] = head.causationid
    if head.traceparent is not None:
        document["traceparent"] = head.traceparent
    document["publisher"] = publisher
    document["pseq"] = str(pseq)
    document["prev"] = prev
    if ruling is not None:
        document["rev"] = str(ruling.rev)
        document["policy"] = ruling.policy
        document["policyversion"] = ruling.policyversion
        document["decidedat"] = rfc3339(ruling.decidedat)
        document["observedseq"] = str(ruling.observedseq)
    return b'%b,"data":%b}' % (orjson.dumps(document)[:-1], data)


def data_json(event: Event) -> bytes:
    """An event's data as it is published; absent values are left out."""
    return event.__pydantic_serializer__.to_json(event, exclude_none=True)


def rfc3339(moment: datetime) -> str:
    """UTC with all six digits of the microsecond. `moment` must be UTC."""
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
