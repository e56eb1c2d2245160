"""One publisher's chain as far as the stream shows it: what was seen, what was seen again, and what came late."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter

from relight.engine.audit.envelopes import Place
from relight.engine.audit.runs import Run, Verdicts
from relight.engine.log.reader import Message

FIRST = attrgetter("first")


@dataclass(slots=True)
class Copies:
    """Numbers seen again, each the successor of the one before: if the last is equal, all are."""

    first: int
    first_sha256: str
    first_seq: int
    first_timestamp_ns: int
    last: int
    sha256: str
    seq: int
    timestamp_ns: int
    healed: bool
    fault: str
    compared: bool = True
    """One by one; else its ends alone."""

    @property
    def events(self) -> int:
        return self.last - self.first + 1

    def numbers(self) -> Iterable[int]:
        """Those that are compared."""
        return range(self.first, self.last + 1) if self.compared else (self.first, self.last)


@dataclass(slots=True)
class Late:
    """Numbers that came after a higher one and were no healed copies; `above` is the lowest of the higher ones."""

    first: int
    last: int
    seq: int
    last_seq: int
    above: int

    @property
    def events(self) -> int:
        return self.last - self.first + 1


class Chain:
    """`fronts` is shared by all chains: whose next number follows an event of this hash."""

    __slots__ = (
        "copies",
        "fronts",
        "healed",
        "is_unknown",
        "late",
        "named",
        "of_tenant",
        "publisher",
        "runs",
        "verdicts",
    )

    def __init__(
        self, publisher: str, vouched: Mapping[int, tuple[str, str]], fronts: "dict[str, tuple[Chain, Run]]"
    ) -> None:
        self.publisher = publisher
        self.fronts = fronts
        self.verdicts = Verdicts(vouched)
        self.runs: list[Run] = []
        self.copies: list[Copies] = []
        self.late: list[Late] = []
        self.healed = 0
        self.named = ""
        """By the source of its first event."""
        self.is_unknown = False
        """The tables would know it, were it a publisher."""
        self.of_tenant = False

    def holds(self, number: int) -> bool:
        """Whether it was seen."""
        at = bisect_right(self.runs, number, key=FIRST) - 1
        return at >= 0 and number <= self.runs[at].last

    def seat(self, number: int, place: Place, message: Message, fault: str) -> None:
        """Takes note of an event that is this number, whatever it says of itself."""
        at = bisect_right(self.runs, number, key=FIRST) - 1
        if at >= 0 and number <= self.runs[at].last:
            self._seat_again(self.runs[at], number, place, message, fault)
            return
        above = self.runs[at + 1] if at + 1 < len(self.runs) else None
        if place.healed:
            self.healed += 1
        elif above is not None:
            self._note_late(number, message.seq, above.first)
        if at >= 0 and self.runs[at].last == number - 1:
            run = self.runs[at]
            self.fronts.pop(run.sha256, None)
            self.verdicts.extend(run, place, message, fault)
        else:
            run = Run(number, place.prev or "", message.seq, number, place.sha256, message.seq, message.timestamp_ns)
            self.runs.insert(at + 1, run)
            self.verdicts.begin(run, place, fault)
            at += 1
        if above is not None and above.first == number + 1:
            self.fronts.pop(above.sha256, None)
            self.verdicts.join(run, above)
            del self.runs[at + 1]
        self.fronts[run.sha256] = (self, run)

    def _seat_again(self, run: Run, number: int, place: Place, message: Message, fault: str) -> None:
        one = (place.sha256, message.seq, message.timestamp_ns)
        if number == run.last and run.doubted is not None and place.prev == run.before and not (fault or place.healed):
            # The one that was there first does not follow the one before it, and this one does: they change places.
            one = (run.sha256, run.seq, run.timestamp_ns)
            known = self.verdicts.changed.get(number)
            fault = known.why if known is not None else ""
            self.fronts.pop(run.sha256, None)
            self.verdicts.replace(run, place, message)
            self.fronts[run.sha256] = (self, run)
        last = self.copies[-1] if self.copies else None
        if (
            last is not None
            and (last.last + 1, last.sha256, last.healed) == (number, place.prev, place.healed)
            and not (fault or last.fault)
        ):
            last.last, (last.sha256, last.seq, last.timestamp_ns) = number, one
        else:
            self.copies.append(Copies(number, *one, number, *one, place.healed, fault))

    def _note_late(self, number: int, seq: int, above: int) -> None:
        last = self.late[-1] if self.late else None
        if last is not None and (last.last + 1, last.above) == (number, above):
            last.last, last.last_seq = number, seq
        else:
            self.late.append(Late(number, number, seq, seq, above))

    def strays(self) -> list[Run]:
        """Takes out runs at the top that the others went past: more came after such a run, below it, than it holds.

        Whoever wrote one took a number that was not due; the numbers between were never used.
        """
        found = []
        while len(self.runs) > 1:
            top, below = self.runs[-1], self.runs[-2]
            passed = sum(late.events for late in self.late if late.last_seq > top.seq and late.last <= below.last)
            if top.vouched or passed < top.events or top.first - below.last - 1 < top.events:
                break
            found.append(self.runs.pop())
            self.fronts.pop(top.sha256, None)
        return found

    def reordered(self) -> list[Late]:
        """Of those that came late, without what was only late after a stray."""
        highest = self.runs[-1].last if self.runs else 0
        return [replace(late) for late in self.late if late.above <= highest]
