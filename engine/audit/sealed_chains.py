"""Follows every publisher's chain through an archive, and tells where a number or a hash is not right."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from relight.engine.audit.models import Finding, Kind
from relight.engine.log.links import Link
from relight.engine.log.numbers import Numbers
from relight.events.envelope import GENESIS

UNKNOWN = ""
"""The hash of an event that is there but cannot be read, or of one that was never seen."""
ALIKE_DIGITS = 32
"""Two hashes that agree in so many of 64 digits are one, a little of which was changed."""
MAX_AGAIN = 100_000

Told = Callable[[Finding], None]


@dataclass(slots=True)
class _Hole:
    """Numbers not seen: the hash of the event before them, and what the one after them says that theirs is."""

    first: int
    last: int
    before: str
    after: str


@dataclass(slots=True)
class _Chain:
    high: int = 0
    sha256: str = GENESIS
    altered: int = 0
    holes: list[_Hole] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an event stands. `copy`: it is a healed one."""

    seq: int
    segment: int
    copy: bool = False


@dataclass(slots=True)
class Chains:
    """Memory grows with publishers, and with what is wrong, but not with events.

    `known`: a number and that event's hash of each publisher. `again`: events whose number was seen long before, by
    publisher, number and hash: whether the first was the same is for the caller to look up.
    """

    told: Told
    known: Mapping[str, tuple[int, str]]
    copies: int = 0
    repeats: int = 0
    unchecked: int = 0
    again: dict[tuple[str, int], dict[str, Place]] = field(default_factory=dict)
    _chains: dict[str, _Chain] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._chains)

    def see(self, link: Link, place: Place) -> None:
        """The next one, in the order in which they stand."""
        chain = self._chains.get(link.publisher)
        if chain is None:
            chain = self._chains[link.publisher] = _Chain()
        n = link.pseq
        if n > chain.high:
            if n > chain.high + 1:
                self._open(chain, n, chain.sha256, link.prev)
            elif chain.sha256 not in (UNKNOWN, link.prev):
                self._disagree(chain, link, place)
            chain.high, chain.sha256 = n, link.sha256
            known = self.known.get(link.publisher)
            if known is not None and known[0] == n and known[1] != link.sha256:
                self._tell(Kind.ALTERED, link.publisher, n, place, "it has another hash than was known of it")
        elif n == chain.high:
            self._at_head(chain, link, place)
        elif (hole := _hole_of(chain, n)) is not None:
            self._fill(chain, hole, link, place)
        else:
            self._remember(link, place)

    def harmed(self, publisher: str, pseq: int) -> None:
        """An event that is there but cannot be read: neither missing, nor anything that others could be held to."""
        chain = self._chains.setdefault(publisher, _Chain())
        if pseq > chain.high:
            if pseq > chain.high + 1:
                self._open(chain, pseq, chain.sha256, UNKNOWN)
            chain.high, chain.sha256 = pseq, UNKNOWN
        elif (hole := _hole_of(chain, pseq)) is not None:
            _split(chain, hole, pseq, before=UNKNOWN, after=UNKNOWN)

    def end(self, *, elsewhere: Mapping[str, Numbers], lost: Mapping[str, Numbers]) -> None:
        """Nothing more comes: tells what is missing, but for what stands `elsewhere` or was declared lost."""
        for publisher, chain in self._chains.items():
            for hole in chain.holes or ():
                self._missing(Kind.MISSING, publisher, hole.first, hole.last, elsewhere, lost)
        for publisher, (pseq, _) in self.known.items():
            high = self._chains[publisher].high if publisher in self._chains else 0
            if pseq > high:
                self._missing(Kind.TRUNCATED, publisher, high + 1, pseq, elsewhere, lost)

    def _missing(
        self,
        kind: Kind,
        publisher: str,
        first: int,
        last: int,
        elsewhere: Mapping[str, Numbers],
        lost: Mapping[str, Numbers],
    ) -> None:
        runs: Iterable[tuple[int, int]] = [(first, last)]
        for known in (elsewhere.get(publisher), lost.get(publisher)):
            if known is not None:
                runs = [rest for run in runs for rest in known.outside(*run)]
        for run_first, run_last in runs:
            self.told(
                Finding(kind=kind, where="archive", publisher=publisher, first_pseq=run_first, last_pseq=run_last)
            )

    def _open(self, chain: _Chain, n: int, before: str, after: str) -> None:
        holes = chain.holes = chain.holes or []
        holes.append(_Hole(chain.high + 1, n - 1, before, after))

    def _disagree(self, chain: _Chain, link: Link, place: Place) -> None:
        """`prev` is not the hash of the event before: either was altered."""
        if _alike(link.prev, chain.sha256):
            chain.altered = link.pseq
            self._tell(Kind.ALTERED, link.publisher, link.pseq, place, "what it says of the event before was changed")
        elif chain.altered != link.pseq - 1:  # else that is why
            self._tell(
                Kind.ALTERED, link.publisher, link.pseq - 1, None, f"the event after it, {link.pseq}, says another hash"
            )

    def _at_head(self, chain: _Chain, link: Link, place: Place) -> None:
        if chain.sha256 == UNKNOWN:
            chain.sha256 = link.sha256
        if link.sha256 == chain.sha256:
            self._count(place)
        else:
            self._tell(Kind.FORKED, link.publisher, link.pseq, place, "there is another event of this number")

    def _fill(self, chain: _Chain, hole: _Hole, link: Link, place: Place) -> None:
        n = link.pseq
        if place.copy:
            self.copies += 1
        else:
            self._tell(Kind.REORDERED, link.publisher, n, place, f"it stands after {chain.high}")
        if n == hole.first and hole.before not in (UNKNOWN, link.prev):
            self._tell(Kind.ALTERED, link.publisher, n, place, "it says another hash of the event before it")
        elif n == hole.last and hole.after not in (UNKNOWN, link.sha256):
            self._tell(Kind.ALTERED, link.publisher, n, place, "the event after it says another hash")
        _split(chain, hole, n, before=link.sha256, after=link.prev)

    def _remember(self, link: Link, place: Place) -> None:
        if len(self.again) >= MAX_AGAIN:
            self.unchecked += 1
            return
        self.again.setdefault((link.publisher, link.pseq), {}).setdefault(link.sha256, place)
        self._count(place)

    def _count(self, place: Place) -> None:
        if place.copy:
            self.copies += 1
        else:
            self.repeats += 1

    def _tell(self, kind: Kind, publisher: str, pseq: int, place: Place | None, detail: str) -> None:
        self.told(
            Finding(
                kind=kind,
                where="archive",
                publisher=publisher,
                first_pseq=pseq,
                last_pseq=pseq,
                seq=place.seq if place else None,
                segment=place.segment if place else None,
                detail=detail,
            )
        )


def _hole_of(chain: _Chain, n: int) -> _Hole | None:
    return next((hole for hole in chain.holes or () if hole.first <= n <= hole.last), None)


def _split(chain: _Chain, hole: _Hole, n: int, *, before: str, after: str) -> None:
    """Number n is there now; `before` is its hash, `after` what it says of the one before it."""
    assert chain.holes is not None
    at = chain.holes.index(hole)
    parts = []
    if n > hole.first:
        parts.append(_Hole(hole.first, n - 1, hole.before, after))
    if n < hole.last:
        parts.append(_Hole(n + 1, hole.last, before, hole.after))
    chain.holes[at : at + 1] = parts


def _alike(one: str, other: str) -> bool:
    return len(one) == len(other) and sum(a == b for a, b in zip(one, other, strict=True)) >= ALIKE_DIGITS
