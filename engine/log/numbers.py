"""Sets of a publisher's numbers, kept as runs: what is missing, what stands, and what one has of the other."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter

MOST = 1 << 62

Run = tuple[int, int]
"""First and last number, both in it."""
Ranges = list[Run]
"""In order; no two of them overlap or touch."""
LAST = itemgetter(1)


def merged(runs: Iterable[Run]) -> Ranges:
    """Of runs in any order."""
    found: Ranges = []
    for first, last in sorted(runs):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def within(ranges: Ranges, number: int) -> bool:
    """Whether it is in one of them."""
    at = bisect_right(ranges, (number, MOST))
    return at > 0 and ranges[at - 1][1] >= number


def without(ranges: Iterable[Run], others: Ranges) -> Ranges:
    """`ranges` less `others`."""
    left: Ranges = []
    for first, last in ranges:
        for at in range(bisect_left(others, first, key=LAST), len(others)):
            if others[at][0] > last:
                break
            if others[at][0] > first:
                left.append((first, others[at][0] - 1))
            first = others[at][1] + 1
        if first <= last:
            left.append((first, last))
    return left


class Numbers:
    """A set that grows."""

    __slots__ = ("_runs",)

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        self._runs = merged(runs)

    def add(self, first: int, last: int | None = None) -> None:
        """One number, or all from `first` to `last`; some may be in it already."""
        runs, last = self._runs, first if last is None else last
        if runs and runs[-1][1] == first - 1:
            runs[-1] = (runs[-1][0], last)  # the usual case
            return
        begin = bisect_left(runs, first - 1, key=LAST)
        end = bisect_right(runs, (last + 1, MOST))
        if begin < end:
            first, last = min(first, runs[begin][0]), max(last, runs[end - 1][1])
        runs[begin:end] = [(first, last)]

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def __bool__(self) -> bool:
        return bool(self._runs)

    @property
    def count(self) -> int:
        """How many numbers; no `len`, which would count runs for whoever iterates."""
        return sum(last - first + 1 for first, last in self._runs)

    def __contains__(self, number: int) -> bool:
        return within(self._runs, number)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Numbers) and self._runs == other._runs

    def __repr__(self) -> str:
        return f"Numbers({self._runs})"

    __hash__ = None  # type: ignore[assignment]  # they change

    @property
    def highest(self) -> int:
        """0 where there is none."""
        return self._runs[-1][1] if self._runs else 0

    def union(self, other: "Numbers") -> "Numbers":
        return Numbers([*self._runs, *other._runs])

    def minus(self, other: "Numbers") -> "Numbers":
        return Numbers(without(self._runs, other._runs))

    def outside(self, first: int, last: int) -> Ranges:
        """Of the numbers from `first` to `last` those that are not in it."""
        return without([(first, last)], self._runs)

    def within(self, other: "Numbers") -> "Numbers":
        return self.minus(self.minus(other))

    def __str__(self) -> str:
        return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in self._runs)


Missing = Mapping[str, Numbers]
"""By publisher; none is empty."""


def less(missing: Missing, taken: Missing) -> dict[str, Numbers]:
    """What is in `missing` and not in `taken`."""
    left = {publisher: numbers.minus(taken.get(publisher, Numbers())) for publisher, numbers in missing.items()}
    return {publisher: numbers for publisher, numbers in left.items() if numbers}


def both(missing: Missing, other: Missing) -> dict[str, Numbers]:
    """What is in either of them."""
    found = {publisher: numbers.union(other.get(publisher, Numbers())) for publisher, numbers in missing.items()}
    return found | {publisher: numbers for publisher, numbers in other.items() if publisher not in found}


def count(missing: Missing) -> int:
    """How many numbers."""
    return sum(numbers.count for numbers in missing.values())
