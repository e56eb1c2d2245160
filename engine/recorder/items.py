"""What a recorder's writer is given, and what it writes together."""

from collections.abc import Callable, Iterable
from contextvars import Context
from dataclasses import dataclass, field
from typing import Protocol

from relight.engine.recorder.receipts import Receipt
from relight.engine.scope import Scope
from relight.engine.spool.rows import Acked, ControlCopy, Spooled, SpooledContent
from relight.events.base import Event

GROUP_EVENTS = 2_000
GROUP_BYTES = 4 << 20


@dataclass(slots=True)
class Taken:
    """An event on its way to the spool; `counted_bytes` is what it took of the room, 0 for the recorder's own."""

    receipt: Receipt
    type: str
    version: int
    entity: str
    time_us: int
    tenant: str
    correlation: str | None
    causation: str | None
    traceparent: str | None
    data: bytes
    counted_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Made:
    """An event that follows from a fact; where it says nothing, the fact's scope does."""

    event: Event
    time_us: int
    id: str | None = None
    tenant: str | None = None
    causation: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """Content that a later event of the same fact holds the digest of; it belongs to the scope's tenant."""

    sha256: str
    body: bytes


Deferral = tuple[Callable[..., Iterable[Made | Kept]], object, Scope | Context, int]
"""What makes events, of which fact, in which scope, and about how many; a tuple, for that is made in no time."""


class InContext(Protocol):
    """A fact that holds a copy of the context that it stands in."""

    context: Context


class Finish:
    """No event is taken after it; acknowledgements are."""


class Stop:
    """The last thing in the queue."""


Item = Taken | Deferral | SpooledContent | Acked | ControlCopy | Callable[[], None] | Finish | Stop

Pair = tuple[Taken, Spooled]


@dataclass(slots=True)
class Group:
    """What is written together; jobs run after it.

    `pairs` are its events once they are numbered. `unmade` is the fact whose events are being made, the last of it.
    `doubtful`: whoever had it in hand before may have written it.
    """

    events: list[Taken] = field(default_factory=list)
    contents: list[SpooledContent] = field(default_factory=list)
    acks: list[Acked] = field(default_factory=list)
    copies: list[ControlCopy] = field(default_factory=list)
    jobs: list[Callable[[], None]] = field(default_factory=list)
    bytes: int = 0
    ends: Finish | Stop | None = None
    pairs: list[Pair] | None = None
    unmade: Deferral | None = None
    doubtful: bool = False
    written: bool = False

    @property
    def full(self) -> bool:
        return self.ends is not None or len(self.events) >= GROUP_EVENTS or self.bytes >= GROUP_BYTES

    def add(self, item: Item) -> None:
        match item:
            case Taken():
                self.events.append(item)
                self.bytes += len(item.data)
            case Acked():
                self.acks.append(item)
            case SpooledContent():
                self.contents.append(item)
                self.bytes += len(item.body)
            case ControlCopy():
                self.copies.append(item)
            case tuple():  # after those that are named tuples
                self.unmade = item
            case Finish() | Stop():
                self.ends = item
            case _:
                self.jobs.append(item)
