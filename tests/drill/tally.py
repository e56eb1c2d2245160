"""What clients met: times of what was answered, and every failure with its moment and its cause."""

import time
from array import array
from collections import Counter
from typing import Any, Literal

Side = Literal["http", "bare"]
SHOWN_FAILURES = 500


class Tally:
    """Of one stretch of asking. Times in milliseconds, moments on the machine's monotonic clock."""

    def __init__(self, *, warm_up_s: float = 0) -> None:
        self._counted_from = time.monotonic() + warm_up_s
        self._ms: dict[Side, array[float]] = {"http": array("d"), "bare": array("d")}
        self._asked: Counter[Side] = Counter()
        self._failed: Counter[Side] = Counter()
        self._failures: list[dict[str, Any]] = []
        self._began = time.monotonic()

    def answered(self, side: Side, began: float) -> None:
        self._asked[side] += 1
        if began >= self._counted_from:
            self._ms[side].append((time.monotonic() - began) * 1_000)

    def failed(
        self, side: Side, began: float, cause: str, *, is_problem: bool = False, status: int | None = None
    ) -> None:
        """`is_problem`: it came as a problem document."""
        self._asked[side] += 1
        self._failed[side] += 1
        if len(self._failures) < SHOWN_FAILURES:
            failure = {"side": side, "began": began, "ended": time.monotonic(), "cause": cause[:300]}
            self._failures.append(failure | {"status": status, "is_problem": is_problem})

    def tick(self) -> dict[str, Any]:
        return {"http": self._asked["http"], "bare": self._asked["bare"], "failed": self._failed.total()}

    def summary(self) -> dict[str, Any]:
        counted_s = time.monotonic() - self._counted_from
        sides = {side: self._of(side, counted_s) for side in self._ms}
        return {"sides": sides, "failures": self._failures, "began": self._began, "ended": time.monotonic()}

    def _of(self, side: Side, counted_s: float) -> dict[str, Any]:
        ordered = sorted(self._ms[side])

        def at(fraction: float) -> float | None:
            return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))] if ordered else None

        return {
            "asked": self._asked[side],
            "failed": self._failed[side],
            "timed": len(ordered),
            "per_s": len(ordered) / counted_s if counted_s > 0 else None,
            "p50_ms": at(0.5),
            "p90_ms": at(0.9),
            "p99_ms": at(0.99),
            "max_ms": ordered[-1] if ordered else None,
        }
