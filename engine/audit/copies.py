"""Numbers that were seen again: read once more beside the first of them, and told apart."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from relight.engine.audit.chain import Chain, Copies
from relight.engine.audit.envelopes import place_of
from relight.engine.audit.models import Finding, Kind
from relight.engine.log.numbers import Ranges, merged, within
from relight.engine.log.reader import Message
from relight.engine.log.topology import DUPLICATE_WINDOW_S

MAX_ASKED = 200_000
"""Numbers that are compared one by one; of more, only the ends of their runs: the chain vouches for what is between."""
WINDOW_NS = int(DUPLICATE_WINDOW_S * 1e9)
NOTHING: Mapping[str, Ranges] = {}
TWICE = "it stands there twice: no publisher of ours sends the same again so soon"
ANOTHER = "another event has its number"
COPY_CHANGED = "a healed copy of it has other bytes"


@dataclass(frozen=True, slots=True)
class Seen:
    seq: int
    sha256: str
    timestamp_ns: int


@dataclass(slots=True)
class Again:
    """A second look at the numbers that were seen more than once; takes the same messages as the walk."""

    asked: dict[str, Ranges] = field(default_factory=dict)
    seen: dict[tuple[str, int], list[Seen]] = field(default_factory=dict)

    @classmethod
    def of(cls, chains: Iterable[Chain], doubtful: Mapping[str, Ranges] = NOTHING) -> "Again":
        """What has to be looked at again, and numbers that are doubtful besides; nothing, if `asked` is empty."""
        found, left = cls(), MAX_ASKED
        for chain in chains:
            ranges: Ranges = list(doubtful.get(chain.publisher, []))
            for copies in chain.copies:
                copies.compared = copies.events <= max(left, 2)
                left -= copies.events if copies.compared else 2
                ranges += ((first, first) for first in copies.numbers())
            if ranges:
                found.asked[chain.publisher] = merged(ranges)
        return found

    def take(self, messages: Iterable[Message]) -> None:
        for message in messages:
            place = place_of(message)
            if place.publisher is None or place.pseq is None:
                continue
            if within(self.asked.get(place.publisher, []), place.pseq):
                seen = Seen(message.seq, place.sha256, message.timestamp_ns)
                self.seen.setdefault((place.publisher, place.pseq), []).append(seen)


@dataclass(slots=True)
class Told:
    """What a chain's copies are. `mended`: changed events whose right bytes stand at this sequence as a healed copy.
    `forged`: numbers whose right event came second, and where."""

    findings: list[Finding] = field(default_factory=list)
    healed: int = 0
    repeated: int = 0
    mended: dict[int, int] = field(default_factory=dict)
    forged: dict[int, int] = field(default_factory=dict)


class Verdict(NamedTuple):
    """Of one number, or of the `events` up to it; `fault` is None where nothing is wrong."""

    number: int
    events: int
    seq: int
    fault: tuple[Kind, str] | None


def tell(chain: Chain, again: Again) -> Told:
    """Healed copies, what a publisher sent again after long, doubles, forks."""
    told = Told()
    for copies in chain.copies:
        verdicts = [_verdict(chain, copies, number, again, told) for number in copies.numbers()]
        for fault, group in groupby(verdicts, key=attrgetter("fault")):
            if fault is not None:
                told.findings.append(_finding(chain.publisher, fault, list(group)))
    return told


def _verdict(chain: Chain, copies: Copies, number: int, again: Again, told: Told) -> Verdict:
    seen = again.seen.get((chain.publisher, number), [])
    copy = _copy_of(copies, number, seen)
    first = next((one for one in seen if one.seq != copy.seq), None)
    changed = chain.verdicts.changed.get(number)
    events = 1 if copies.compared or number == copies.first else copies.events - 1
    right = changed.right if changed is not None else first.sha256 if first is not None else None
    fault: tuple[Kind, str] | None = None
    if copies.fault:
        fault = (Kind.ALTERED if copies.healed else Kind.INSERTED, copies.fault)
    elif copy.sha256 == right or (right is None and copies.healed):
        if copies.healed:
            told.healed += events
            if changed is not None:
                told.mended[number] = copy.seq
        elif changed is not None:
            told.forged[number] = copy.seq
        elif first is not None and copy.timestamp_ns - first.timestamp_ns >= WINDOW_NS:
            told.repeated += events
        else:
            fault = (Kind.INSERTED, TWICE)
    elif first is not None and copy.sha256 == first.sha256:
        fault = (Kind.INSERTED, TWICE)
    else:
        fault = (Kind.ALTERED, COPY_CHANGED) if copies.healed else (Kind.FORKED, ANOTHER)
    return Verdict(number, events, copy.seq, fault)


def _copy_of(copies: Copies, number: int, seen: list[Seen]) -> Seen:
    if number == copies.first:
        return Seen(copies.first_seq, copies.first_sha256, copies.first_timestamp_ns)
    if number == copies.last:
        return Seen(copies.seq, copies.sha256, copies.timestamp_ns)
    return next(one for one in seen if copies.first_seq < one.seq < copies.seq)


def _finding(publisher: str, fault: tuple[Kind, str], verdicts: list[Verdict]) -> Finding:
    last = verdicts[-1]
    return Finding(
        kind=fault[0],
        where="stream",
        publisher=publisher,
        first_pseq=min(verdicts[0].number, last.number - last.events + 1),
        last_pseq=last.number,
        seq=verdicts[0].seq,
        detail=fault[1],
    )
