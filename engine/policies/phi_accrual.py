"""How sure one may be that a sender of heartbeats is gone: the accrual failure detector phi.

Hayashibara, Défago, Yared, Katayama: "The phi accrual failure detector", SRDS 2004. Phi 8 means: at the pace at which
heartbeats came until now, one comes later than that once in 10^8 times.
"""

import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MAX_PHI = 300.0
"""Beyond it the tail of a normal distribution is below what a double can hold."""
_SECOND_US = 1_000_000

Seconds = Annotated[float, Field(gt=0, le=3_600, allow_inf_nan=False)]


class PhiPolicy(BaseModel):
    """When a silence counts as one. Slow is not dead: the pace is learned, and what is late by `pause_s` is forgiven.

    `expected_s` is how often senders send: a burst of late ones does not make anybody expect more.
    `deviation_min_s` is what no steadiness brings the standard deviation below, `deviation_max_s` what no jitter brings
    it above: however bad a link is, it is known within a bounded time that nothing comes over it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: Annotated[float, Field(gt=0, lt=MAX_PHI)] = 8.0
    expected_s: Seconds = 0.5
    pause_s: Seconds = 1.0
    deviation_min_s: Seconds = 0.2
    deviation_max_s: Seconds = 1.0
    window: Annotated[int, Field(ge=1, le=1_000)] = 100
    """Intervals that are remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """When one sender's heartbeats came, in microseconds of whatever clock the receiver has: only differences count.

    `total_us` and `squares_us` are sums over `intervals_us`, and exact, so that a window never has to be added up.
    """

    last_us: int
    intervals_us: tuple[int, ...] = ()
    total_us: int = 0
    squares_us: int = 0


def heard(arrivals: Arrivals, now_us: int, policy: PhiPolicy) -> Arrivals:
    """A heartbeat more.

    A silence that was long enough for a suspicion tells nothing of the pace: counted, it would let the next one go
    unnoticed for as long.
    """
    if now_us <= arrivals.last_us:
        return arrivals
    if phi(arrivals, now_us, policy) >= policy.threshold:
        return Arrivals(
            last_us=now_us,
            intervals_us=arrivals.intervals_us,
            total_us=arrivals.total_us,
            squares_us=arrivals.squares_us,
        )
    interval_us = now_us - arrivals.last_us
    intervals = (*arrivals.intervals_us, interval_us)
    gone, kept = intervals[: -policy.window], intervals[-policy.window :]
    return Arrivals(
        last_us=now_us,
        intervals_us=kept,
        total_us=arrivals.total_us + interval_us - sum(gone),
        squares_us=arrivals.squares_us + interval_us**2 - sum(one**2 for one in gone),
    )


def phi(arrivals: Arrivals, now_us: int, policy: PhiPolicy) -> float:
    """0 where a heartbeat just came, up to `MAX_PHI`; never less a moment later."""
    silent_s = (now_us - arrivals.last_us) / _SECOND_US
    mean_s, deviation_s = _pace(arrivals, policy)
    tail = math.erfc((silent_s - mean_s - policy.pause_s) / (deviation_s * math.sqrt(2))) / 2
    return MAX_PHI if tail <= 10**-MAX_PHI else max(0.0, -math.log10(tail))


def _pace(arrivals: Arrivals, policy: PhiPolicy) -> tuple[float, float]:
    """Mean and standard deviation of the intervals, within what the policy allows."""
    count = len(arrivals.intervals_us)
    if count == 0:
        return policy.expected_s, policy.deviation_min_s
    mean_us = arrivals.total_us / count
    variance_us = max(0, count * arrivals.squares_us - arrivals.total_us**2) / count**2
    deviation_s = math.sqrt(variance_us) / _SECOND_US
    bounded_s = min(max(deviation_s, policy.deviation_min_s), max(policy.deviation_min_s, policy.deviation_max_s))
    return max(mean_us / _SECOND_US, policy.expected_s), bounded_s
