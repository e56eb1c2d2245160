"""What receipts say, and their canonical bytes."""

from datetime import datetime
from typing import Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict

from relight.engine.log.numbers import Numbers
from relight.events.values import Content, Sha256

Runs = tuple[tuple[int, int], ...]
"""First and last number of each run, both in it."""
Named = tuple[int, str]
"""A number and the id of the event that has it."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class _Document(_Frozen):
    def to_bytes(self) -> bytes:
        """The same for equal contents."""
        return orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)

    @classmethod
    def of(cls, body: bytes) -> Self:
        """Raises `pydantic.ValidationError`."""
        return cls.model_validate_json(body)


class PublisherReceipt(_Frozen):
    """One publisher's.

    `confirmed`: on the stream, of which `last_*` is the highest and `confirmed_ids` those since its last
    acknowledged announcement. `absent`: announced as written to its spool, and not on the stream. `in_doubt`: held in
    its memory only, or announced too long ago to be looked for. `waiting_ids`: taken and not numbered when it was
    heard last, and `waiting` more without a name. From number `open_from` on nobody knows; None: it ended in order.
    Of long lists at most 500 ids are named; the numbers are all there.
    """

    publisher: str
    place: str | None = None
    durable: bool = True
    announced_at: datetime | None = None
    generation: int = 0
    announcement: int = 0
    confirmed: Runs = ()
    last_id: str | None = None
    last_sha256: Sha256 | None = None
    confirmed_ids: tuple[Named, ...] = ()
    absent: Runs = ()
    absent_ids: tuple[Named, ...] = ()
    in_doubt: Runs = ()
    in_doubt_ids: tuple[Named, ...] = ()
    waiting_ids: tuple[str, ...] = ()
    waiting: int = 0
    open_from: int | None = None

    @property
    def is_settled(self) -> bool:
        return not (self.absent or self.in_doubt or self.waiting_ids or self.waiting) and self.open_from is None


class Receipt(_Document):
    """Of one failover. `complete`: the stream was read to its end; else what was not found is in doubt.

    `forgotten`: publishers of which more was announced than is remembered, since the service that made this started.
    """

    version: Literal[1] = 1
    failover: str
    fleet: str
    source_region: str
    target_region: str
    made_at: datetime
    through_seq: int
    complete: bool = True
    forgotten: int = 0
    publishers: tuple[PublisherReceipt, ...] = ()

    @property
    def open(self) -> tuple[PublisherReceipt, ...]:
        return tuple(one for one in self.publishers if not one.is_settled)


class PublisherClosing(_Frozen):
    """What became of one publisher's: `recovered` is on the stream now, `lost` never will be, the rest nobody knows.

    `lost_ids` and `recovered_ids` of events that had no number have 0 for it. `why`: how that is known.
    """

    publisher: str
    recovered: Runs = ()
    recovered_ids: tuple[Named, ...] = ()
    lost: Runs = ()
    lost_ids: tuple[Named, ...] = ()
    in_doubt: Runs = ()
    in_doubt_ids: tuple[Named, ...] = ()
    open_from: int | None = None
    why: str

    @property
    def recovered_events(self) -> int:
        return _counted(self.recovered, self.recovered_ids)

    @property
    def lost_events(self) -> int:
        return _counted(self.lost, self.lost_ids)

    @property
    def in_doubt_events(self) -> int:
        return _counted(self.in_doubt, self.in_doubt_ids)


class Closing(_Document):
    """The final receipt of a failover: `receipt` is the one that it closes."""

    version: Literal[1] = 1
    failover: str
    receipt: Content
    source_region: str
    closed_at: datetime
    through_seq: int
    how: Literal["returned", "gone"]
    declared_by: str | None = None
    reason: str
    publishers: tuple[PublisherClosing, ...] = ()

    @property
    def recovered_events(self) -> int:
        return sum(one.recovered_events for one in self.publishers)

    @property
    def lost_events(self) -> int:
        return sum(one.lost_events for one in self.publishers)

    @property
    def in_doubt_events(self) -> int:
        return sum(one.in_doubt_events for one in self.publishers)


def _counted(runs: Runs, ids: tuple[Named, ...]) -> int:
    """Events without a number are not among the runs."""
    return Numbers(runs).count + sum(not pseq for pseq, _ in ids)
