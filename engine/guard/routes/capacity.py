"""How long a caller would rather wait than hear that nobody takes calls."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_allowed: ContextVar[float | None] = ContextVar("relight_capacity_s", default=None)


@contextmanager
def waiting_for_capacity(seconds: float) -> Iterator[None]:
    """Calls inside wait so long for a dependency that takes calls again, before they fail with `CircuitOpen`.

    Each call may; the policy's own time does not count then, and 0 means not at all. A deadline ends the wait too.
    """
    if not seconds >= 0:
        raise ValueError(f"seconds must be 0 or more, not {seconds}")
    token = _allowed.set(seconds)
    try:
        yield
    finally:
        _allowed.reset(token)


def capacity_s(otherwise: float) -> float:
    """How long the caller allows; `otherwise`, the policy's, where nobody said."""
    allowed = _allowed.get()
    return otherwise if allowed is None else allowed
