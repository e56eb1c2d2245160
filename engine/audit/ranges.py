"""Ranges of numbers, first and last inclusive."""

from bisect import bisect_right
from collections.abc import Iterable

Ranges = list[tuple[int, int]]


def merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """In order, without overlap."""
    found: Ranges = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def within(ranges: Ranges, number: int) -> bool:
    """`ranges` as `merged` gives them."""
    at = bisect_right(ranges, (number, 1 << 62)) - 1
    return at >= 0 and number <= ranges[at][1]


def without(ranges: Iterable[tuple[int, int]], others: Ranges) -> Ranges:
    """`ranges` less `others`; both as `merged` gives them."""
    found = []
    for first, last in ranges:
        at = first
        for a, b in others:
            if b < at or a > last:
                continue
            if a > at:
                found.append((at, a - 1))
            at = b + 1
        if at <= last:
            found.append((at, last))
    return found
