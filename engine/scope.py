"""Who is acting: tenant, agent and task of whatever is recorded, and what caused it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What events recorded now say about their origin; `None` where nobody said."""

    tenant: str | None = None
    agent: str | None = None
    task: str | None = None
    correlation: str | None = None
    causation: str | None = None
    traceparent: str | None = None


_current: ContextVar[Scope] = ContextVar("relight_scope", default=Scope())


def current() -> Scope:
    return _current.get()


@contextmanager
def entered(**changes: str | None) -> Iterator[Scope]:
    """The scope around with these changes, for the duration of the `with`; inherited by tasks started within."""
    token = _current.set(replace(_current.get(), **{name: value for name, value in changes.items() if value is not None}))
    try:
        yield _current.get()
    finally:
        _current.reset(token)
