"""The caller's deadline: `with relight.deadline(30):` bounds every guarded call inside, with its retries and waits."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from relight.engine.clock import Clock

_until_us: ContextVar[int | None] = ContextVar("relight_deadline_us", default=None)
_clock = Clock()


@contextmanager
def deadline(seconds: float, *, clock: Clock | None = None) -> Iterator[None]:
    """Guarded calls inside end within `seconds`, counted from here; inherited by tasks started within.

    An outer deadline that comes first stays. A call that does not make it raises `DeadlineExceeded`.
    """
    if not seconds > 0:
        raise ValueError(f"a deadline of {seconds} s is over before it begins")
    if seconds == math.inf:
        raise ValueError("a deadline in infinity is none: leave it out")
    outer_us = _until_us.get()
    until_us = (clock or _clock).now_us() + round(seconds * 1_000_000)
    token = _until_us.set(until_us if outer_us is None else min(outer_us, until_us))
    try:
        yield
    finally:
        _until_us.reset(token)


deadline_us = _until_us.get
"""Unix microseconds; None where the caller set none."""
