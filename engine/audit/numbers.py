"""Sets of numbers as runs: a publisher's, of which there are many and few gaps."""

from bisect import bisect_right
from collections.abc import Iterator


class Numbers:
    """Runs that neither touch nor overlap, ascending."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def add(self, first: int, last: int) -> None:
        """Those numbers, whether they are in it or not."""
        if self._lasts and first == self._lasts[-1] + 1:
            self._lasts[-1] = last  # the usual case
            return
        begin = bisect_right(self._lasts, first - 2)
        end = bisect_right(self._firsts, last + 1)
        if begin < end:
            first, last = min(first, self._firsts[begin]), max(last, self._lasts[end - 1])
        self._firsts[begin:end] = [first]
        self._lasts[begin:end] = [last]

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._firsts, number) - 1
        return at >= 0 and number <= self._lasts[at]

    def outside(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """The runs of first..last that are not in it."""
        for at in range(bisect_right(self._lasts, first - 1), len(self._firsts)):
            if self._firsts[at] > last:
                break
            if self._firsts[at] > first:
                yield first, self._firsts[at] - 1
            first = max(first, self._lasts[at] + 1)
        if first <= last:
            yield first, last
