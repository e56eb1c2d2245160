"""Sets of a publisher's numbers, kept as runs: what is missing, what stands, and what one has of the other."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping

MOST = 1 << 62

Run = tuple[int, int]


class Numbers:
    """Runs (first, last) in order; no two of them overlap or touch."""

    __slots__ = ("_runs",)

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        self._runs: list[Run] = []
        for first, last in sorted(runs):
            if self._runs and first <= self._runs[-1][1] + 1:
                self._runs[-1] = (self._runs[-1][0], max(last, self._runs[-1][1]))
            else:
                self._runs.append((first, last))

    def add(self, number: int) -> None:
        runs = self._runs
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
            return
        at = bisect_right(runs, (number, MOST))
        if at and runs[at - 1][1] >= number:
            return
        first = last = number
        left, right = at, at
        if at and runs[at - 1][1] == number - 1:
            left, first = at - 1, runs[at - 1][0]
        if at < len(runs) and runs[at][0] == number + 1:
            right, last = at + 1, runs[at][1]
        runs[left:right] = [(first, last)]

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def __bool__(self) -> bool:
        return bool(self._runs)

    @property
    def count(self) -> int:
        """How many numbers; no `len`, which would count runs for whoever iterates."""
        return sum(last - first + 1 for first, last in self._runs)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._runs, (number, MOST))
        return at > 0 and self._runs[at - 1][1] >= number

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
        left = Numbers()
        taken = iter(other._runs)
        taking = next(taken, None)
        for first, last in self._runs:
            while taking is not None and taking[1] < first:
                taking = next(taken, None)
            while taking is not None and taking[0] <= last:
                if taking[0] > first:
                    left._runs.append((first, taking[0] - 1))
                first = taking[1] + 1
                if taking[1] > last:
                    break
                taking = next(taken, None)
            if first <= last:
                left._runs.append((first, last))
        return left

    def within(self, other: "Numbers") -> "Numbers":
        return self.minus(self.minus(other))

    def __str__(self) -> str:
        return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in self._runs)


Missing = Mapping[str, Numbers]
"""By publisher; none is empty."""


def without(missing: Missing, taken: Missing) -> dict[str, Numbers]:
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
