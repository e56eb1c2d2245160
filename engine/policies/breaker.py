"""When one process lets no call through to a dependency, and when it tries again."""

from collections import deque
from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from relight.engine.policies.fleet_breaker import FleetPolicy, Opening, State

BUCKETS = 10
"""Parts of the window: that many times while it passes the oldest calls leave it."""
US_PER_S = 1_000_000

Share = Annotated[float, Field(gt=0, le=1)]


class BreakerPolicy(Opening):
    """What trips a breaker, each condition None where it is off, and how it recovers.

    `failure_rate`: share of the calls in the window of `window_s`; `slow_rate`: share of them that took longer than
    `slow_ms`; neither counts before `minimum_calls`. `jitter`: up to this share is added to each opening, so that not
    all processes come back at once. `fleet`: None for a breaker that concerns this process only.
    """

    consecutive_failures: Annotated[int, Field(ge=1)] | None = 5
    failure_rate: Share | None = 0.5
    slow_rate: Share | None = None
    slow_ms: Annotated[int, Field(ge=0)] = 30_000
    window_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60
    minimum_calls: Annotated[int, Field(ge=1)] = 20
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.1
    fleet: FleetPolicy | None = FleetPolicy()


class LocalBreaker:
    """Of one process and one dependency; whoever uses it sees to it that calls come one after the other.

    Times are Unix microseconds. `draw` gives 0..1: how much of the jitter is added. An `epoch` names one half-open
    period: what comes of another one's probes no longer counts, nor what comes of calls that passed before it tripped.
    """

    __slots__ = (
        "_buckets",
        "_draw",
        "_opening_us",
        "_policy",
        "calls",
        "epoch",
        "failures",
        "failures_in_row",
        "openings",
        "probes_left",
        "reason",
        "retry_at_us",
        "since_us",
        "slow",
        "state",
        "successes",
        "tripped_failures",
        "turns_at_us",
    )

    def __init__(self, policy: BreakerPolicy, draw: Callable[[], float]) -> None:
        self._policy = policy
        self._draw = draw
        self.state = State.CLOSED
        self.since_us = 0
        self.reason = ""
        self.epoch = 0
        self.openings = 0
        self.retry_at_us = 0
        self.probes_left = 0
        self.successes = 0
        self.tripped_failures = 0
        """How many failures (or slow calls) the last opening rests on."""
        self._opening_us = 0
        self._clear()

    def _clear(self) -> None:
        self.failures_in_row = 0
        self.calls = self.failures = self.slow = 0
        self._buckets: deque[list[int]] = deque([[0, 0, 0]])
        self.turns_at_us = 0
        """When the next part of the window begins."""

    def ready(self, now_us: int) -> bool:
        """Whether `permit` would let a call pass."""
        match self.state:
            case State.CLOSED:
                return True
            case State.OPEN:
                if now_us < self.since_us:  # the clock was put back, which must not keep it open for longer
                    self.retry_at_us -= self.since_us - now_us
                    self.since_us = now_us
                return now_us >= self.retry_at_us
            case State.HALF_OPEN:
                return self.probes_left > 0 or now_us >= self.retry_at_us

    def permit(self, now_us: int) -> int | None:
        """0 for a call through a closed breaker, a probe's epoch through a half-open one, None where it must not pass.

        Probes that nobody gave back for as long as it was open are given out anew.
        """
        if self.state is State.CLOSED:
            return 0
        if not self.ready(now_us):
            return None
        if self.state is State.OPEN or self.probes_left == 0:
            self.half_open(now_us)
        self.probes_left -= 1
        return self.epoch

    def succeeded(self, now_us: int, latency_us: int) -> bool:
        """Of a call that passed while it was closed. True: it tripped, for the answer came too late."""
        policy = self._policy
        self.failures_in_row = 0
        if policy.failure_rate is None and policy.slow_rate is None:
            return False
        if now_us >= self.turns_at_us:
            self._turn(now_us)
        self.calls += 1
        self._buckets[-1][0] += 1
        if policy.slow_rate is None or latency_us <= policy.slow_ms * 1_000:
            return False
        self.slow += 1
        self._buckets[-1][2] += 1
        if self.calls < policy.minimum_calls or self.slow < policy.slow_rate * self.calls:
            return False
        self._trip(now_us, f"{self.slow} of {self.calls} calls took longer than {policy.slow_ms} ms", self.slow)
        return True

    def answered(self, calls: int) -> None:
        """So many calls succeeded since the last turn, none of them slow: as `succeeded` for each."""
        self.failures_in_row = 0
        self.calls += calls
        self._buckets[-1][0] += calls

    def failed(self, now_us: int) -> bool:
        """Of a call that passed while it was closed. True: it tripped."""
        policy = self._policy
        self.failures_in_row += 1
        if now_us >= self.turns_at_us:
            self._turn(now_us)
        self.calls += 1
        self.failures += 1
        bucket = self._buckets[-1]
        bucket[0] += 1
        bucket[1] += 1
        if policy.consecutive_failures is not None and self.failures_in_row >= policy.consecutive_failures:
            self._trip(now_us, f"{self.failures_in_row} failures in a row", self.failures_in_row)
        elif (
            policy.failure_rate is not None
            and self.calls >= policy.minimum_calls
            and self.failures >= policy.failure_rate * self.calls
        ):
            self._trip(now_us, f"{self.failures} of {self.calls} calls failed", self.failures)
        else:
            return False
        return True

    def probe_succeeded(self, epoch: int, now_us: int, latency_us: int) -> bool:
        """True: it closed, or opened again because the answer came too late; `state` says which."""
        if not self._is_current(epoch):
            return False
        policy = self._policy
        if policy.slow_rate is not None and latency_us > policy.slow_ms * 1_000:
            self._trip(now_us, f"the probe took longer than {policy.slow_ms} ms", self.tripped_failures + 1)
            return True
        self.successes += 1
        if self.successes < policy.successes:
            return False
        self.close(now_us, "the probe was answered" if policy.successes == 1 else "the probes were answered")
        return True

    def probe_failed(self, epoch: int, now_us: int) -> bool:
        """True: it opened again."""
        if not self._is_current(epoch):
            return False
        self._trip(now_us, "the probe failed", self.tripped_failures + 1)
        return True

    def probe_released(self, epoch: int) -> None:
        """The probe tells nothing: another call may be one."""
        if self._is_current(epoch):
            self.probes_left += 1

    def half_open(self, now_us: int) -> None:
        """Lets probes pass, whatever it did before."""
        policy = self._policy
        self.state, self.since_us = State.HALF_OPEN, now_us
        self.epoch += 1
        self.probes_left, self.successes = policy.probes, 0
        self.retry_at_us = now_us + (self._opening_us or round(policy.open_s * US_PER_S))

    def trip(self, now_us: int, reason: str) -> None:
        """Opens it for a failure that was seen otherwise."""
        self._trip(now_us, reason, self.tripped_failures + 1)

    def close(self, now_us: int, reason: str) -> None:
        """Forgets the failures."""
        self.state, self.since_us, self.reason = State.CLOSED, now_us, reason
        self.openings = self.tripped_failures = self._opening_us = 0
        self._clear()

    def _is_current(self, epoch: int) -> bool:
        return self.state is State.HALF_OPEN and epoch == self.epoch

    def _trip(self, now_us: int, reason: str, failures: int) -> None:
        policy = self._policy
        self.openings += 1
        self.state, self.since_us, self.reason, self.tripped_failures = State.OPEN, now_us, reason, failures
        lasts_s = policy.lasts_s(self.openings) * (1 + policy.jitter * self._draw())
        self._opening_us = round(lasts_s * US_PER_S)
        self.retry_at_us = now_us + self._opening_us

    def _turn(self, now_us: int) -> None:
        """The next part of the window begins; what fell out of it no longer counts."""
        width_us = max(1, round(self._policy.window_s * US_PER_S / BUCKETS))
        passed = (now_us - self.turns_at_us) // width_us + 1 if self.turns_at_us else BUCKETS
        for _ in range(min(passed, BUCKETS)):
            self._buckets.append([0, 0, 0])
            if len(self._buckets) > BUCKETS:
                calls, failures, slow = self._buckets.popleft()
                self.calls -= calls
                self.failures -= failures
                self.slow -= slow
        self.turns_at_us = (self.turns_at_us + passed * width_us) if self.turns_at_us else now_us + width_us
