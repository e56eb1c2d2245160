"""Figures and how they are taken: rounds of ours and of the raw limit in turn, so that a noisy minute hits both."""

import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from relight.engine.embedded.nats import EmbeddedNats

Side = Callable[[], Awaitable[float]]
"""One round of one side: it measures itself and returns its figure."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The servers of this run, and how much to do. `database()` is a new migrated database, dropped afterwards."""

    nats: EmbeddedNats
    database: Callable[[], AbstractAsyncContextManager[str]]
    folder: Path
    quick: bool

    def count(self, full: int, quick: int) -> int:
        return quick if self.quick else full


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Ours beside its raw limit; `ratio` is the median of the rounds' ratios, and `target` what DESIGN 12 asks of it.

    `unit` says which is better: rates end in "/s" and grow, times shrink. A target of a figure without a limit is for
    the figure itself, and one of `ratio` is a floor for rates and a ceiling for times.
    """

    name: str
    unit: str
    ours: Sequence[float]
    against: str = ""
    limit: Sequence[float] = ()
    target: float | None = None
    note: str = ""

    @property
    def better(self) -> Literal["higher", "lower"]:
        return "higher" if self.unit.endswith("/s") else "lower"

    @property
    def ratio(self) -> float | None:
        if len(self.limit) == len(self.ours):
            return statistics.median(ours / limit for ours, limit in zip(self.ours, self.limit, strict=True))
        return statistics.median(self.ours) / statistics.median(self.limit) if self.limit else None

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        reached = statistics.median(self.ours) if self.ratio is None else self.ratio
        return reached >= self.target if self.better == "higher" else reached <= self.target

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "unit": self.unit,
            "better": self.better,
            "ours": summary(self.ours),
            "against": self.against,
            "limit": summary(self.limit) if self.limit else None,
            "ratio": self.ratio,
            "target": self.target,
            "met": self.met,
            "note": self.note,
        }


def summary(rounds: Sequence[float]) -> dict[str, object]:
    return {"median": statistics.median(rounds), "low": min(rounds), "high": max(rounds), "rounds": list(rounds)}


async def alternate(rounds: int, **sides: Side) -> dict[str, list[float]]:
    """Every side once a round; the order turns round each time."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    order = list(sides)
    for _ in range(rounds):
        for name in order:
            gc.collect()
            gc.freeze()  # what was prepared would otherwise be looked through at the cost of whoever is measured
            taken[name].append(await sides[name]())
        order.reverse()
    return taken


def percentile(values: Sequence[float], fraction: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))]


@dataclass(slots=True)
class Stopwatch:
    """Seconds of the `with`."""

    started: float = field(default_factory=time.perf_counter)
    seconds: float = 0.0

    def __enter__(self) -> "Stopwatch":
        self.started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self.started
