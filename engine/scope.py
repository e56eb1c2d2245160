"""Who is acting: tenant, agent and task of whatever is recorded, and what caused it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache

from pydantic import TypeAdapter, ValidationError

from relight.events.envelope import Traceparent
from relight.events.errors import InvalidEvent
from relight.events.values import EventId, Key, Name


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What events recorded now say about their origin; `None` where nobody said."""

    tenant: str | None = None
    agent: str | None = None
    task: str | None = None
    correlation: str | None = None
    causation: str | None = None
    traceparent: str | None = None


_NOBODY = Scope()
_current: ContextVar[Scope] = ContextVar("relight_scope", default=_NOBODY)  # frozen


current = _current.get


def scope_in(context: Context) -> Scope:
    """Of whoever copied his context."""
    return context.get(_current, _NOBODY)


@contextmanager
def entered(**changes: str | None) -> Iterator[Scope]:
    """The scope around with these changes, for the duration of the `with`; inherited by tasks started within.

    Raises `InvalidEvent` for what no event could carry.
    """
    said = {name: _checked(name, value) for name, value in changes.items() if value is not None}
    token = _current.set(replace(_current.get(), **said))
    try:
        yield _current.get()
    finally:
        _current.reset(token)


_ADAPTERS: dict[str, TypeAdapter[str]] = {
    "tenant": TypeAdapter(Name),
    "agent": TypeAdapter(Key),
    "task": TypeAdapter(Key),
    "correlation": TypeAdapter(Key),
    "causation": TypeAdapter(EventId),
    "traceparent": TypeAdapter(Traceparent),
}


@lru_cache(maxsize=4_096)
def _checked(name: str, value: str) -> str:
    try:
        return _ADAPTERS[name].validate_python(value)
    except ValidationError as error:
        raise InvalidEvent(f"scope: {name}: {error.errors(include_url=False)[0]['msg']}") from None
