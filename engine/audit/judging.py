"""What a walk comes to: findings, by what the links, the copies and others who know of the events say."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from relight.engine.audit.chain import Chain
from relight.engine.audit.copies import Again, Told, tell
from relight.engine.audit.envelopes import NEVER_FOLDED, OTHER_SOURCE
from relight.engine.audit.models import Finding, Kind
from relight.engine.audit.runs import CHANGED, NOT_THE_FIRST, ONE_OF_TWO, Changed
from relight.engine.audit.walking import Stray, Walk
from relight.engine.log.numbers import Ranges, merged, without

MAX_UNKNOWN = 100_000
GUESSED = frozenset({CHANGED, ONE_OF_TWO, NOT_THE_FIRST})
"""Said of an event by its neighbours alone."""
WITHOUT_END = 1 << 62
NOT_WRITTEN = "a number that was not due: its publisher went on below it"
NOT_KNOWN = "the tables have folded the stream up to here, and do not know it"


@dataclass(frozen=True, slots=True)
class Expected:
    """Somebody knows of this publisher's numbers up to here."""

    highest: int
    sha256: str
    holder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What else is known. `passed`: the tables' highest numbers, where they have folded the walk's `passing_seq`.
    `sealed`: the numbers that archives hold; `trimmed_seq`: what is sealed may be absent up to here."""

    expected: Mapping[str, Expected] = field(default_factory=dict)
    passed: Mapping[str, int] | None = None
    lost: Mapping[str, Ranges] = field(default_factory=dict)
    sealed: Mapping[str, Ranges] = field(default_factory=dict)
    trimmed_seq: int = 0


@dataclass(slots=True)
class Judgement:
    """`missing`: numbers of which nothing stands on the stream; `harmed`: those whose right bytes do not stand there,
    the missing ones among them. `lost` were declared so; `trimmed` are only in archives."""

    found: list[tuple[float, Finding]] = field(default_factory=list)
    """Each with where it stands, or would stand, on the stream."""
    missing: dict[str, Ranges] = field(default_factory=dict)
    harmed: dict[str, Ranges] = field(default_factory=dict)
    lost: dict[str, Ranges] = field(default_factory=dict)
    trimmed: dict[str, Ranges] = field(default_factory=dict)
    events: int = 0
    healed: int = 0
    repeated: int = 0
    mended: int = 0
    unvouched: int = 0

    @property
    def findings(self) -> list[Finding]:
        """The first bad event first."""
        return [finding for _, finding in sorted(self.found, key=_order)]


@dataclass(frozen=True, slots=True)
class Absence:
    """Numbers that are not on the stream, and between which sequences they would stand."""

    first: int
    last: int
    after_seq: int
    before_seq: int


def judge(walk: Walk, again: Again, known: Circumstances) -> Judgement:
    """`walk` has ended."""
    judgement = Judgement()
    _rename(walk)
    strays = list(walk.strays)
    for publisher in {**walk.chains, **known.expected}:
        chain = walk.chains.get(publisher) or Chain(publisher, {}, {})
        _judge_chain(chain, walk, again, known, strays, judgement)
    for stray in strays:
        junk = _finding(Kind.INSERTED, stray.publisher, stray.pseq, stray.pseq, stray.seq, stray.fault)
        judgement.found.append((stray.seq, junk))
    return judgement


def _judge_chain(
    chain: Chain, walk: Walk, again: Again, known: Circumstances, strays: list[Stray], judgement: Judgement
) -> None:
    publisher, changed = chain.publisher, chain.verdicts.changed
    found: list[Finding] = []
    misplaced = chain.strays()
    for run in misplaced:
        found.append(_finding(Kind.INSERTED, publisher, run.first, run.last, run.first_seq, NOT_WRITTEN))
        for number in [number for number in changed if run.first <= number <= run.last]:
            del changed[number]
    found += _unknown(chain, walk, known)
    told = tell(chain, again)
    found += told.findings
    absences = list(_absences(chain, known.expected.get(publisher), {run.sha256 for run in misplaced}))
    if chain.is_unknown:  # whoever made it up, nothing is missing of it
        absences = []
    for stray in [stray for stray in strays if stray.publisher == publisher]:
        if (at := _number_of(stray, absences, changed)) is not None:
            strays.remove(stray)
            changed[at] = Changed(stray.seq, stray.fault)
    missing, truncated = _missing(publisher, absences, walk, known, changed, judgement)
    for kind, absences in ((Kind.MISSING, missing), (Kind.TRUNCATED, truncated)):
        judgement.found += (
            (absence.after_seq + 0.5, _missing_finding(kind, publisher, absence, known)) for absence in absences
        )
    found += _changed(publisher, changed, told)
    found += (
        _finding(Kind.REORDERED, publisher, late.first, late.last, late.seq, f"after number {late.above}")
        for late in chain.reordered()
        if not all(number in changed for number in (late.first, late.last))
    )
    absent = merged((absence.first, absence.last) for absence in (*missing, *truncated))
    wrong = [(number, number) for number in changed if number not in told.mended and number not in told.forged]
    if absent:
        judgement.missing[publisher] = absent
    if absent or wrong:
        judgement.harmed[publisher] = merged((*absent, *wrong))
    judgement.found += ((finding.seq or 0, finding) for finding in found)
    judgement.events += sum(run.events for run in (*chain.runs, *misplaced))
    judgement.healed += chain.healed + told.healed
    judgement.repeated += told.repeated
    judgement.mended += len(told.mended)
    top = chain.runs[-1] if chain.runs else None
    judgement.unvouched += chain.verdicts.unvouched + (top is not None and not top.vouched and not top.bad)


def _rename(walk: Walk) -> None:
    """One event under a name that nobody knows, whose source names a publisher that lacks one there: it is that."""
    for publisher, chain in list(walk.chains.items()):
        if chain.named in ("", publisher) or publisher in walk.known or len(chain.runs) != 1:
            continue
        [run], theirs = chain.runs, walk.chains.get(chain.named)
        lacks = chain.named in walk.known if theirs is None else bool(theirs.runs) and not theirs.holds(run.first)
        if lacks and run.events == 1 and not chain.copies:
            del walk.chains[publisher]
            walk.strays.append(Stray(run.seq, chain.named, run.first, OTHER_SOURCE))


def _unknown(chain: Chain, walk: Walk, known: Circumstances) -> Iterator[Finding]:
    """What the tables would know of, had their projector read it: with them, it is taken off the chain."""
    if known.passed is None or chain.publisher not in walk.passed:
        return
    theirs, there = known.passed.get(chain.publisher, 0), walk.passed[chain.publisher]
    changed = chain.verdicts.changed
    for run in reversed(chain.runs) if there > theirs else ():
        first, last = max(run.first, theirs + 1), min(run.last, there)
        numbers = [n for n in range(first, last + 1)[:MAX_UNKNOWN] if n not in changed or changed[n].why in GUESSED]
        if numbers:
            seq = run.first_seq if numbers[0] == run.first else run.seq if numbers[0] == run.last else None
            for number in numbers:
                changed.pop(number, None)
            yield _finding(Kind.INSERTED, chain.publisher, numbers[0], numbers[-1], seq, NOT_KNOWN)
    if theirs == 0:
        chain.is_unknown = True


def _absences(chain: Chain, expected: Expected | None, misplaced: set[str]) -> Iterator[Absence]:
    number, seq = 1, 0
    for run in chain.runs:
        if run.first > number:
            yield Absence(number, run.first - 1, seq, run.first_seq)
        number, seq = run.last + 1, run.seq
    if expected is not None and expected.highest >= number and expected.sha256 not in misplaced:
        yield Absence(number, expected.highest, seq, WITHOUT_END)


def _number_of(stray: Stray, absences: list[Absence], changed: Mapping[int, Changed]) -> int | None:
    """Which of the absent ones an unreadable message is, by where it stands."""
    for absence in absences:
        if absence.after_seq < stray.seq < absence.before_seq:
            if stray.pseq is not None and absence.first <= stray.pseq <= absence.last:
                return stray.pseq
            for number in range(absence.first, absence.last + 1):
                if number not in changed:
                    return number
    return None


def _missing(
    publisher: str,
    absences: list[Absence],
    walk: Walk,
    known: Circumstances,
    changed: Mapping[int, Changed],
    judgement: Judgement,
) -> tuple[list[Absence], list[Absence]]:
    """What is missing between others, and what at the end; declared losses and what was trimmed apart."""
    there = merged((number, number) for number in changed)
    missing, truncated = list[Absence](), list[Absence]()
    for absence in absences:
        ranges = without([(absence.first, absence.last)], there)
        lost = known.lost.get(publisher, [])
        left = without(ranges, lost)
        _add(judgement.lost, publisher, without(ranges, left))
        if _may_be_trimmed(absence, walk, known):
            kept = without(left, known.sealed.get(publisher, []))
            _add(judgement.trimmed, publisher, without(left, kept))
            left = kept
        into = truncated if absence.before_seq == WITHOUT_END else missing
        into += (Absence(first, last, absence.after_seq, absence.before_seq) for first, last in left)
    return missing, truncated


def _may_be_trimmed(absence: Absence, walk: Walk, known: Circumstances) -> bool:
    """They stood at sequences that were trimmed, if nothing else is absent where they can have stood."""
    trimmed = known.trimmed_seq
    if absence.after_seq >= trimmed:
        return False
    end = min(absence.before_seq, walk.last_seq + 1)
    return not any(last > trimmed and first < end for first, last in walk.absent)


def _changed(publisher: str, changed: Mapping[int, Changed], told: Told) -> Iterator[Finding]:
    """Runs of one reason are one finding."""
    numbers = sorted(n for n in changed if not (n in told.mended and changed[n].why in NEVER_FOLDED))
    at = 0
    while at < len(numbers):
        first = last = numbers[at]
        event = changed[first]
        kind, detail = Kind.ALTERED, event.why
        if first in told.forged:
            kind, detail = Kind.FORKED, f"the one at sequence {told.forged[first]} is that which the next follows"
        elif first in told.mended:
            detail += f"; its right bytes stand at sequence {told.mended[first]}, as a healed copy"
        else:
            while at + 1 < len(numbers) and numbers[at + 1] == last + 1 and _alike(changed, last, told):
                at, last = at + 1, last + 1
        yield _finding(kind, publisher, first - event.or_before, last, event.seq, detail)
        at += 1


def _alike(changed: Mapping[int, Changed], number: int, told: Told) -> bool:
    nothing_more = number + 1 not in told.mended and number + 1 not in told.forged
    return nothing_more and changed[number].why == changed[number + 1].why and not changed[number + 1].or_before


def _missing_finding(kind: Kind, publisher: str, absence: Absence, known: Circumstances) -> Finding:
    where = f"between sequences {absence.after_seq} and {absence.before_seq}"
    if absence.before_seq == WITHOUT_END:
        where = f"after sequence {absence.after_seq}; {known.expected[publisher].holder} knows of them"
    return _finding(kind, publisher, absence.first, absence.last, None, where)


def _order(found: tuple[float, Finding]) -> tuple[float, str, int]:
    return found[0], found[1].publisher or "", found[1].first_pseq or 0


def _finding(
    kind: Kind, publisher: str | None, first: int | None, last: int | None, seq: int | None, detail: str
) -> Finding:
    return Finding(
        kind=kind, where="stream", publisher=publisher, first_pseq=first, last_pseq=last, seq=seq, detail=detail
    )


def _add(ranges: dict[str, Ranges], publisher: str, more: Ranges) -> None:
    if more:
        ranges[publisher] = merged((*ranges.get(publisher, []), *more))
