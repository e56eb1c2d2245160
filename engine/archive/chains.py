"""Of every publisher the number up to which the archive holds an unbroken chain, and what waits above a hole."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from relight.engine.log.links import Link
from relight.events.envelope import GENESIS

MAX_RUNS = 1_000
"""Of one publisher: with more holes than that, the runs furthest above are forgotten, and the head stops there."""


class SealedHead(NamedTuple):
    """All numbers up to `pseq` are sealed, each with the hash of the one before; `sha256` is that event's."""

    pseq: int = 0
    sha256: str = GENESIS


class Run(NamedTuple):
    """Numbers `first_pseq`..`last_pseq` that are linked to each other, above a hole or beside a fork."""

    first_pseq: int
    first_prev: str
    last_pseq: int
    last_sha256: str


class SealedChains:
    """Takes links in any order, and any number of times; `forks` counts those that contradict what they join."""

    def __init__(self) -> None:
        self.heads: dict[str, SealedHead] = {}
        self.runs: dict[str, list[Run]] = {}
        self.forks = 0

    @property
    def holes(self) -> int:
        """Publishers with something above a hole, or beside a fork."""
        return len(self.runs)

    def add(self, links: Iterable[Link]) -> dict[str, SealedHead]:
        """The heads that moved."""
        moved = {}
        for publisher, pseq, prev, sha256, *_ in links:
            head = self.heads.get(publisher, _NONE)
            if pseq == head.pseq + 1 and prev == head.sha256:
                head = SealedHead(pseq, sha256)
                if publisher in self.runs:
                    head = self._joined(publisher, head)
                self.heads[publisher] = moved[publisher] = head
            elif pseq > head.pseq:
                self._wait(publisher, Run(pseq, prev, pseq, sha256))
                self.forks += pseq == head.pseq + 1
            else:
                self.forks += pseq == head.pseq and sha256 != head.sha256
        return moved

    def missing(self) -> Iterator[tuple[str, int, int]]:
        """Publisher, first and last number of each hole below what is sealed."""
        for publisher, runs in self.runs.items():
            expected = self.heads.get(publisher, _NONE).pseq + 1
            for run in runs:
                if run.first_pseq > expected:
                    yield publisher, expected, run.first_pseq - 1
                expected = max(expected, run.last_pseq + 1)

    def _joined(self, publisher: str, head: SealedHead) -> SealedHead:
        """The head with every run that follows it, and without those that it has passed."""
        runs = self.runs[publisher]
        while runs and runs[0].first_pseq <= head.pseq + 1:
            run = runs[0]
            if run.first_pseq == head.pseq + 1:
                if run.first_prev != head.sha256:
                    self.forks += 1  # what waited follows another event of this number
                    break
                head = SealedHead(run.last_pseq, run.last_sha256)
            elif run.last_pseq > head.pseq:
                break
            del runs[0]
        if not runs:
            del self.runs[publisher]
        return head

    def _wait(self, publisher: str, new: Run) -> None:
        runs = self.runs.setdefault(publisher, [])
        at = bisect_right(runs, new.first_pseq, key=_first)
        if at and runs[at - 1].last_pseq >= new.first_pseq:
            self.forks += runs[at - 1].last_pseq == new.first_pseq and runs[at - 1].last_sha256 != new.last_sha256
            return  # it is there already
        below = runs[at - 1] if at else None
        above = runs[at] if at < len(runs) else None
        if below is not None and below.last_pseq + 1 == new.first_pseq:
            if below.last_sha256 == new.first_prev:
                new, at = below._replace(last_pseq=new.last_pseq, last_sha256=new.last_sha256), at - 1
                del runs[at]
            else:
                self.forks += 1
        if above is not None and above.first_pseq == new.last_pseq + 1:
            if above.first_prev == new.last_sha256:
                new = new._replace(last_pseq=above.last_pseq, last_sha256=above.last_sha256)
                del runs[at]
            else:
                self.forks += 1
        runs.insert(at, new)
        del runs[MAX_RUNS:]


_NONE = SealedHead()


def _first(run: Run) -> int:
    return run.first_pseq
