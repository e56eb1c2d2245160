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


@dataclass(frozen=True, slots=True)
class Part:
    """A time that a fact is put: what makes its events, and about how many; `then` where it is put once more."""

    make: Callable[..., Iterable[Made | Kept]]
    events: int = 1
    then: "Part | None" = None


class Fact(Protocol):
    """What is put as it is, with its beginning and again with its end: memory that is kept costs more than any work.

    What the recorder notes on it tells the first time from the second one.
    """

    part: Part
    """The first."""
    begins_in: object
    """The inbox where it waits for the first time; another process's after a fork()."""

    @property
    def context(self) -> Scope | Context:
        """The scope that it stands in, or a copy of the context that this is in."""


class Finish:
    """No event is taken after it; acknowledgements are."""


class Stop:
    """The last thing in the queue."""


Item = Taken | Deferral | Fact | SpooledContent | Acked | ControlCopy | Callable[[], None] | Finish | Stop

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
            case _ if callable(item):
                self.jobs.append(item)
            case _:
                raise TypeError(f"an inbox gives what is to be made of a {type(item).__qualname__}, not itself")
