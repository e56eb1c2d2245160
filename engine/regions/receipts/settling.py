"""What became of what a receipt leaves open, as far as is certain; pure."""

from dataclasses import dataclass

from relight.engine.log.numbers import Numbers
from relight.engine.recorder.answering_spools import Lies
from relight.engine.regions.receipts.announced import Announcement
from relight.engine.regions.receipts.models import Named, PublisherClosing, PublisherReceipt
from relight.engine.regions.receipts.reading import Stood

MAX_IDS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What is known of one publisher now.

    `stood`: what came onto the stream since the receipt, read after all else here was heard; `lost`: numbers that
    somebody declared lost. `fresh`: what it announced since. `lies`: its spool. `place_is_empty`: the place of its
    spool answers, and has none of it. `is_silent`: it is not heard for long; `is_back`: its region is.
    """

    stood: Stood
    lost: Numbers
    fresh: Announcement | None = None
    lies: Lies | None = None
    place_is_empty: bool = False
    is_silent: bool = False
    is_back: bool = False


def settled(part: PublisherReceipt, signs: Signs) -> PublisherClosing | None:
    """None while something may still come."""
    left = _Left.of(part, signs)
    ended = _ended(part, signs.stood)
    if left.nothing and part.open_from is None:
        return left.closing(part, "all of it is on the stream")
    if signs.fresh is not None:
        if left.numbers or left.may_be_named_by(signs.fresh):
            return None
        return left.closing(part, "it was heard again", lost=left.numbers)
    if signs.lies is not None:
        if signs.lies.damaged or not signs.lies.drained or _within(left.numbers, signs.lies.spooled):
            return None
        return left.closing(part, "its spool was drained", lost=left.numbers)
    if signs.place_is_empty and signs.is_silent:
        open_from = None if ended else left.open_from(part, signs.stood)
        return left.closing(part, "its spool is gone", lost=left.numbers, open_from=open_from)
    if ended and not left.numbers:
        return left.closing(part, "it ended in order")
    if not part.durable and signs.is_silent and signs.is_back:
        open_from = None if ended else left.open_from(part, signs.stood)
        return left.closing(part, "it held them in memory, and is gone", lost=left.numbers, open_from=open_from)
    return None


def declared_gone(part: PublisherReceipt, signs: Signs) -> PublisherClosing:
    """Nobody waits any longer: what is absent is lost, what is in doubt stays in doubt."""
    certain = settled(part, signs)
    if certain is not None:
        return certain
    left = _Left.of(part, signs)
    lost = left.numbers.within(Numbers(part.absent))
    doubt = left.numbers.minus(lost)
    return PublisherClosing(
        publisher=part.publisher,
        recovered=tuple(left.recovered),
        recovered_ids=left.recovered_ids,
        lost=tuple(lost.union(left.declared)),
        lost_ids=_those(part, lost.union(left.declared)),
        in_doubt=tuple(doubt),
        in_doubt_ids=(*_those(part, doubt), *((0, id) for id in left.waiting_ids)),
        open_from=None if _ended(part, signs.stood) else left.open_from(part, signs.stood),
        why="its region was declared gone",
    )


@dataclass(frozen=True, slots=True)
class _Left:
    """What is still missing of what a receipt leaves open."""

    recovered: Numbers
    recovered_ids: tuple[Named, ...]
    declared: Numbers
    numbers: Numbers
    waiting_ids: tuple[str, ...]
    waiting: int

    @classmethod
    def of(cls, part: PublisherReceipt, signs: Signs) -> "_Left":
        stood = signs.stood
        missing = Numbers([*part.absent, *part.in_doubt])
        tail = _tail(part, stood)
        recovered = stood.numbers.within(missing.union(tail))
        declared = missing.minus(recovered).within(signs.lost)
        ids = set(stood.ids.values())
        return cls(
            recovered=recovered,
            recovered_ids=tuple((pseq, stood.ids[pseq]) for pseq in sorted(stood.ids) if pseq in recovered)[:MAX_IDS],
            declared=declared,
            numbers=missing.minus(recovered).minus(declared),
            waiting_ids=tuple(id for id in part.waiting_ids if id not in ids),
            waiting=part.waiting,
        )

    @property
    def nothing(self) -> bool:
        return not (self.numbers or self.waiting_ids or self.waiting)

    def may_be_named_by(self, fresh: Announcement) -> bool:
        """Whether events without a number may still be on their way."""
        there = {*fresh.waiting_ids, *fresh.ids}
        unnamed = fresh.waiting or fresh.spooled - fresh.acked > len(fresh.ids)
        return any(id in there or unnamed for id in self.waiting_ids)

    def open_from(self, part: PublisherReceipt, stood: Stood) -> int | None:
        return None if part.open_from is None else max(part.open_from, stood.numbers.highest + 1)

    def closing(
        self, part: PublisherReceipt, why: str, *, lost: Numbers | None = None, open_from: int | None = None
    ) -> PublisherClosing:
        gone = self.declared.union(lost or Numbers())
        return PublisherClosing(
            publisher=part.publisher,
            recovered=tuple(self.recovered),
            recovered_ids=self.recovered_ids,
            lost=tuple(gone),
            lost_ids=(*_those(part, gone), *((0, id) for id in self.waiting_ids)),
            open_from=open_from,
            why=why,
        )


def _tail(part: PublisherReceipt, stood: Stood) -> Numbers:
    """Numbers that nobody knew of, up to where another process went on under the identity, or it ended."""
    if part.open_from is None:
        return Numbers()
    last = stood.opened_at - 1 if stood.opened_at >= part.open_from else stood.numbers.highest
    return Numbers([(part.open_from, last)]) if last >= part.open_from else Numbers()


def _ended(part: PublisherReceipt, stood: Stood) -> bool:
    """Whether the stream itself says how far it came."""
    return part.open_from is None or max(stood.ended_at, stood.opened_at) >= part.open_from


def _within(numbers: Numbers, spooled: int) -> bool:
    """Whether a spool with numbers up to `spooled` should have some of them."""
    return any(first <= spooled for first, _ in numbers)


def _those(part: PublisherReceipt, numbers: Numbers) -> tuple[Named, ...]:
    return tuple(one for one in (*part.absent_ids, *part.in_doubt_ids) if one[0] in numbers)
