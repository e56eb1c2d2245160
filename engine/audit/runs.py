"""Unbroken runs of one publisher's numbers, and what the links between its events say of each of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from relight.engine.audit.envelopes import Place
from relight.engine.log.reader import Message
from relight.events.envelope import GENESIS

OTHER_BYTES = "its bytes are not those that "
CHANGED = f"{OTHER_BYTES}the next event gives the hash of"
NOT_VOUCHED = OTHER_BYTES + "{} holds the hash of"
PREV_CHANGED = "what it says of the event before it was changed"
NOT_THE_FIRST = "it says it is the first, and that there was one before it"
ONE_OF_TWO = "it or the event before it: they do not fit together, and nothing vouches for either"


@dataclass(slots=True)
class Run:
    """Numbers `first`..`last`, all seen. `sha256`, `seq` and `timestamp_ns` are the last one's; `before` and
    `before_seq` those of the one before it.

    `doubted`: of that one the last gives this hash, which is another; whether it was changed, or the last is a forgery,
    shows with the next. `bad`: the last is known not to be right. `vouched`: somebody else holds the last one's hash.
    """

    first: int
    first_prev: str
    first_seq: int
    last: int
    sha256: str
    seq: int
    timestamp_ns: int
    before: str = GENESIS
    before_seq: int = 0
    before_vouched: bool = False
    doubted: str | None = None
    bad: bool = False
    vouched: bool = False

    @property
    def events(self) -> int:
        return self.last - self.first + 1


@dataclass(slots=True)
class Changed:
    """An event that is not as it was recorded. `right`: the hash that it should have, where that is known.

    `or_before`: it may be the one before it instead.
    """

    seq: int
    why: str
    right: str | None = None
    or_before: bool = False


@dataclass(slots=True)
class Verdicts:
    """Of a chain's events. `vouched`: hashes that others hold, and who; `unvouched` counts events of which
    nothing says whether they are right, since the next one's hash of them is unreadable."""

    vouched: Mapping[int, tuple[str, str]]
    changed: dict[int, Changed] = field(default_factory=dict)
    unvouched: int = 0

    def begin(self, run: Run, place: Place, fault: str) -> None:
        """The run's only event was seen."""
        if run.first == 1 and place.prev != GENESIS and not fault:
            fault = PREV_CHANGED if resembles(place.prev, GENESIS) else NOT_THE_FIRST
        self._of_last(run, fault)

    def extend(self, run: Run, place: Place, message: Message, fault: str) -> None:
        """The next number of the run was seen."""
        fault = self._link(run, place.prev, fault)
        run.before, run.before_seq, run.before_vouched = run.sha256, run.seq, run.vouched
        run.last, run.sha256 = run.last + 1, place.sha256
        run.seq, run.timestamp_ns, run.bad, run.vouched = message.seq, message.timestamp_ns, False, False
        self._of_last(run, fault)

    def join(self, below: Run, above: Run) -> None:
        """The number between them was seen; all of it is in `below` then."""
        known = self.changed.get(above.first)
        fault = self._link(below, above.first_prev, known.why if known else "")
        if above.events == 1:
            above.before, above.before_seq, above.before_vouched = below.sha256, below.seq, below.vouched
            above.doubted = below.doubted
            above.bad = above.bad or bool(fault)
        elif below.doubted is not None:  # the next after it has come already
            self.blame(below.last, below.seq, CHANGED, below.doubted)
        if fault and not known:
            self.blame(above.first, above.first_seq, fault)
        below.last, below.sha256, below.seq, below.timestamp_ns = (
            above.last,
            above.sha256,
            above.seq,
            above.timestamp_ns,
        )
        below.before, below.before_seq, below.before_vouched = above.before, above.before_seq, above.before_vouched
        below.doubted, below.bad, below.vouched = above.doubted, above.bad, above.vouched
        if below.vouched:
            self._settle(below)

    def replace(self, run: Run, place: Place, message: Message) -> None:
        """The run's last is forged, and this the one that follows the event before."""
        self.changed.pop(run.last, None)
        run.sha256, run.seq, run.timestamp_ns = place.sha256, message.seq, message.timestamp_ns
        run.doubted, run.bad, run.vouched = None, False, False
        self._of_last(run, "")

    def end(self, run: Run) -> None:
        """No more will come."""
        if run.doubted is None or run.bad:
            self._settle(run)
        elif run.before_vouched:
            self.blame(run.last, run.seq, CHANGED)
        else:
            self.blame(run.last, run.before_seq, ONE_OF_TWO)
            self.changed[run.last].or_before = True
        run.doubted = None

    def blame(self, number: int, seq: int, why: str, right: str | None = None) -> None:
        """The first reason stays."""
        found = self.changed.setdefault(number, Changed(seq, why))
        found.right = found.right or right

    def _link(self, run: Run, prev: str | None, fault: str) -> str:
        """What the successor's `prev` tells of the run's last; gives the successor's own fault."""
        self._settle(run)
        if prev == run.sha256:
            return fault
        if prev is None:
            self.unvouched += not run.bad
        elif resembles(prev, run.sha256):
            return fault or PREV_CHANGED
        elif run.bad:
            self.blame(run.last, run.seq, CHANGED, None if fault else prev)
        else:
            run.doubted = prev
        return fault

    def _of_last(self, run: Run, fault: str) -> None:
        """By what is wrong with the event itself, and by who else holds its hash."""
        sha256, holder = self.vouched.get(run.last, (None, ""))
        if fault or (sha256 is not None and sha256 != run.sha256):
            self.blame(run.last, run.seq, fault or NOT_VOUCHED.format(holder), sha256)
            run.bad = True
        elif sha256 is not None:
            run.vouched = True
            self._settle(run)

    def _settle(self, run: Run) -> None:
        """Of two that do not fit together the former was changed: changing a hash leaves most of its digits, so it is
        not the latter's `prev`. Unless somebody holds the former's hash, and the latter is known to be bad."""
        if run.doubted is not None and not (run.bad and run.before_vouched):
            self.blame(run.last - 1, run.before_seq, CHANGED, run.doubted)
        run.doubted = None


def resembles(prev: str | None, sha256: str) -> bool:
    """Whether a hash was this one before something in it was changed: two that differ have next to nothing in common.

    Counted from both ends, for an escape (`\\b`) makes one character of two.
    """
    if prev is None or abs(len(prev) - len(sha256)) > 2:
        return False
    return _equal_at_first(prev, sha256) + _equal_at_first(prev[::-1], sha256[::-1]) >= 32


def _equal_at_first(one: str, other: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
