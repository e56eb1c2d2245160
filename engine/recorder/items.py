"""What a recorder's writer is given, and what it writes together."""

from collections.abc import Callable
from dataclasses import dataclass, field

from relight.engine.recorder.receipts import Receipt
from relight.engine.spool.rows import Acked, ControlCopy, Spooled, SpooledContent

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


class Finish:
    """No event is taken after it; acknowledgements are."""


class Stop:
    """The last thing in the queue."""


Item = Taken | SpooledContent | Acked | ControlCopy | Callable[[], None] | Finish | Stop


Pair = tuple[Taken, Spooled]


@dataclass(slots=True)
class Group:
    """What is written together; jobs run after it.

    `pairs` are its events once they are numbered. `doubtful`: whoever had it in hand before may have written it.
    """

    events: list[Taken] = field(default_factory=list)
    contents: list[SpooledContent] = field(default_factory=list)
    acks: list[Acked] = field(default_factory=list)
    copies: list[ControlCopy] = field(default_factory=list)
    jobs: list[Callable[[], None]] = field(default_factory=list)
    bytes: int = 0
    ends: Finish | Stop | None = None
    pairs: list[Pair] | None = None
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
            case Finish() | Stop():
                self.ends = item
            case _:
                self.jobs.append(item)
