"""What a guard finds out about the clients it serves, once for each: whom they call, and whether they retry too."""

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from anthropic import BaseModel
from anthropic._base_client import BaseClient

from relight.engine.guard.breakers.breaker import Breaker
from relight.engine.guard.calls.parts import Parts
from relight.engine.guard.clients.clients import ANTHROPIC, ANYWHERE, is_client, is_guard, provider_of, region_of
from relight.engine.guard.clients.endpoints import model_of
from relight.engine.guard.facts import Dependency

log = logging.getLogger(__name__)

MAX_MODELS = 1_000
"""Kept per client; a program that makes up names of models does not fill the memory."""


class Lane:
    """Calls of one client to one model, under one guard. `max_retries` as the client's."""

    __slots__ = ("breaker", "dependency", "kind", "max_retries", "parts", "straight")

    def __init__(self, parts: Parts, dependency: Dependency, max_retries: int | None) -> None:
        self.parts = parts
        self.dependency = dependency
        self.breaker = parts.breaker(dependency)
        self.straight = parts.straight and (self.breaker is None or isinstance(self.breaker, Breaker))
        """Whether a call that works needs no more than a look at the breaker."""
        self.max_retries = max_retries
        self.kind: object = None
        """The model of the SDK's that the last answer was parsed into."""

    def reads(self, kind: object) -> bool:
        """Whether answers are parsed into it, as a model of the SDK's."""
        if found := is_model(kind):
            self.kind = kind
        return found


class KnownClient:
    """One client. `max_retries`: its own retries where they are on, so that attempts would multiply."""

    __slots__ = ("guards", "lanes", "max_retries", "provider", "region")

    def __init__(self, provider: str, region: str, *, max_retries: int | None = None, guards: int = 1) -> None:
        self.provider = provider
        self.region = region
        self.max_retries = max_retries
        self.guards = guards
        self.lanes: dict[str, Lane] = {}
        """By model, filled by `lane`."""

    def lane(self, model: str, parts: Parts) -> Lane:
        if (known := self.lanes.get(model)) is None:
            if len(self.lanes) >= MAX_MODELS:
                self.lanes.clear()
            dependency = Dependency(self.provider, self.region, model)
            known = self.lanes[model] = Lane(parts, dependency, self.max_retries)
        return known


class KnownClients:
    """Finds the client behind a `call_next`: the SDK hands a middleware everything but that."""

    def __init__(self, provider: str | None, region: str | None) -> None:
        self._provider = provider
        self._region = region
        self._unknown = KnownClient(provider or ANTHROPIC, region or ANYWHERE)
        self._known: WeakKeyDictionary[BaseClient[Any, Any], KnownClient] = WeakKeyDictionary()
        self._last: tuple[object, KnownClient] = (None, self._unknown)
        self.multiplying = 0
        """Clients whose own retries are on."""
        self.doubled = 0
        """Clients that two guards serve."""
        self._said: set[str] = set()

    def lane(self, call_next: Callable[..., object], body: Any, parts: Parts) -> Lane:
        last, known = self._last
        if last is not call_next:
            known = self._of(call_next)
        try:
            return known.lanes[body["model"]]
        except (LookupError, TypeError):  # a new model, or a body that names none
            return known.lane(model_of(body), parts)

    def _of(self, call_next: Callable[..., object]) -> KnownClient:
        client = client_behind(call_next)
        if client is None:
            return self._unknown
        found = self._known.get(client)
        if found is None:
            found = self._known[client] = self._look_at(client)
        self._last = (call_next, found)
        return found

    def _look_at(self, client: BaseClient[Any, Any]) -> KnownClient:
        known = KnownClient(
            self._provider or provider_of(client),
            self._region or (region_of(client) if is_client(client) else ANYWHERE),
            max_retries=client.max_retries or None,
            guards=sum(map(is_guard, client.middleware)),
        )
        name = type(client).__name__
        if known.max_retries:
            self.multiplying += 1
            self._warn(
                f"{name} has max_retries={known.max_retries} beside its guard; use relight.guarded(client), or "
                "max_retries=0"
            )
        if known.guards > 1:
            self.doubled += 1
            self._warn(f"{name} has {known.guards} guards among its middlewares; leave one")
        return known

    def _warn(self, what: str) -> None:
        """Once: some programs make a client of their client for every call."""
        if what not in self._said:
            self._said.add(what)
            log.warning("attempts would multiply: %s", what, extra={"action": "attempts_multiply"})


def client_behind(call_next: object) -> BaseClient[Any, Any] | None:
    """The client whose chain of middlewares goes on with `call_next`; None where it cannot be seen.

    The SDK's chain is made of closures: each holds the next one, and the last one its client.
    """
    for _ in range(_LINKS):
        names = getattr(getattr(call_next, "__code__", None), "co_freevars", ())
        cells = dict(zip(names, getattr(call_next, "__closure__", None) or (), strict=False))
        try:
            if "call_next" not in cells:
                client = cells["self"].cell_contents
                return client if isinstance(client, BaseClient) else None
            call_next = cells["call_next"].cell_contents
        except (KeyError, ValueError):
            return None
    return None


_LINKS = 100


def is_model(cast_to: object) -> bool:
    """Whether an answer is parsed into one of the SDK's models."""
    return isinstance(cast_to, type) and _is_model(cast_to)


@lru_cache(maxsize=1_024)
def _is_model(kind: type) -> bool:
    return issubclass(kind, BaseModel)
