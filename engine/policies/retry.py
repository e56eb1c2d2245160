"""Whether a failed attempt is made again, and after how long: pure, the same live, in replay and in tests."""

from dataclasses import dataclass

RATE_LIMITED = "rate_limited"
OVERLOADED = "overloaded"

RETRIED = frozenset(
    {
        "conflict",
        "connection",
        "malformed_response",
        "name_resolution",
        OVERLOADED,
        RATE_LIMITED,
        "request_timeout",
        "server_error",
        "timeout",
        "tls",
        "truncated",
    }
)
"""Failures that another attempt may mend; they have the names that are recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOptions:
    """How often, and after which waits. Overload is counted for itself: it lasts longer than a fault does.

    Where there are fewer waits than retries, the last one is repeated. `jitter`: the share of a wait that is left to
    chance, 0 for exact ones. `rate_limit_wait_s`: after a 429 that does not say how long.
    """

    retries: int = 4
    waits_s: tuple[float, ...] = (1, 2, 4, 8)
    overload_retries: int = 6
    overload_waits_s: tuple[float, ...] = (2, 4, 8, 16, 32, 60)
    rate_limit_wait_s: float = 60
    jitter: float = 0.25
    retried: frozenset[str] = RETRIED

    @property
    def attempts(self) -> int:
        """The most that one call can make on one route."""
        return 1 + self.retries + self.overload_retries


@dataclass(frozen=True, slots=True)
class Wait:
    """Another attempt after so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No further attempt; the reason is one of those below."""

    reason: str


DELIVERED = GiveUp("delivered")
"""The caller has seen part of the answer."""
REFUSED = GiveUp("refused")
"""The server says that another attempt is no use."""
NOT_RETRIED = GiveUp("not_retried")
NOT_REPEATABLE = GiveUp("not_repeatable")
"""The request's body can be sent once only."""
EXHAUSTED = GiveUp("exhausted")
PAST_DEADLINE = GiveUp("past_deadline")
"""The wait would end after the caller's deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """An attempt that failed, and those before it: `attempts` and `overloads` count it too.

    `asked_s`: what the server asked to be waited, `should_retry` what it thinks of another attempt; None where it did
    not say. `left_s`: until the caller's deadline.
    """

    failure: str
    attempts: int
    overloads: int = 0
    asked_s: float | None = None
    should_retry: bool | None = None
    left_s: float
    delta_handed_out: bool = False
    repeatable: bool = True


def after(options: RetryOptions, failed: Failed, *, chance: float = 0.0) -> Wait | GiveUp:
    """What follows; `chance` is drawn anew for each decision, at least 0 and below 1.

    What the server asks for is waited instead of our own wait, a little longer and never shorter, if that is within
    the deadline; where it asks for nothing (0, or a moment that has passed) it is our own.
    """
    if failed.delta_handed_out:
        return DELIVERED
    if failed.should_retry is False:
        return REFUSED
    if failed.failure not in options.retried and not failed.should_retry:
        return NOT_RETRIED
    if not failed.repeatable:
        return NOT_REPEATABLE
    if failed.failure == OVERLOADED:
        number, retries, waits_s = failed.overloads, options.overload_retries, options.overload_waits_s
    else:
        number, retries, waits_s = failed.attempts - failed.overloads, options.retries, options.waits_s
    if number > retries:
        return EXHAUSTED
    own_s = waits_s[min(number, len(waits_s)) - 1] if waits_s else 0.0
    random_s = options.jitter * chance * own_s
    if failed.asked_s is not None and failed.asked_s > 0:
        wait_s = failed.asked_s
        if wait_s + random_s < failed.left_s:
            wait_s += random_s
    elif failed.failure == RATE_LIMITED and failed.asked_s is None:
        wait_s = options.rate_limit_wait_s
        if wait_s + random_s < failed.left_s:
            wait_s += random_s
    else:
        wait_s = own_s - random_s
    return Wait(wait_s) if wait_s < failed.left_s else PAST_DEADLINE
