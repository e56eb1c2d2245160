"""The routes of one call, in order, and when the next one's turn comes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from anthropic import APIRequest

from relight.engine.errors import CircuitOpen, GuardError
from relight.engine.guard.facts import Dependency
from relight.engine.guard.routes.fallback import (
    EQUALLY_REFUSED,
    IF_ASKED,
    Adapt,
    Fallback,
    Place,
    Send,
    asynchronous_of,
    places,
)
from relight.engine.guard.routes.refusals import Tried, circuit_open

SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.05, 1.0
"""Of one wait for capacity. A breaker may close before it said it would, and its probes may be taken by others."""
_US = 1_000_000


class Refused(Protocol):
    """A breaker's no."""

    @property
    def retry_at_us(self) -> int: ...
    @property
    def reason(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Route:
    """One way to an answer; `send(adapt(request))` is one attempt on it."""

    dependency: Dependency
    send: Send
    adapt: Adapt
    reason: str | None = None
    """Why this is not the one that the caller asked; None where it is."""
    retries: int | None = None
    """Instead of the policy's."""
    on: frozenset[str] = frozenset()
    """Failures after which it is wanted at once."""


class Routes:
    """A guard's fallbacks, ready to be used; with none of them a call has the one route that it came by.

    Raises `GuardError` for fallbacks that could never be used by a client of that provider and kind.
    """

    def __init__(
        self, fallbacks: Sequence[Fallback] = (), *, provider: str | None = None, asynchronous: bool | None = None
    ) -> None:
        self.asynchronous = asynchronous_of(fallbacks)
        """The kind of their clients; None: they have none."""
        self._places = places(fallbacks, provider=provider, asynchronous=asynchronous)

    def __bool__(self) -> bool:
        return bool(self._places)

    def stand_in(self, *, asynchronous: bool) -> None:
        """Raises `GuardError` where they cannot stand in for a client of that kind."""
        if self.asynchronous is not None and self.asynchronous != asynchronous:
            first, second = ("an async", "sync") if asynchronous else ("a sync", "async")
            raise GuardError(f"the fallbacks of this Guard have {second} clients: they cannot stand in for {first} one")

    def chain(self, request: APIRequest, call_next: Send, dependency: Dependency, *, asynchronous: bool) -> "Chain":
        """The routes of a call that would go to `dependency` by `call_next`. Raises `GuardError`, see `stand_in`."""
        self.stand_in(asynchronous=asynchronous)
        return Chain(request, Route(dependency, call_next, _as_it_is), self._places)


class Chain:
    """One call's way from route to route; what its routes send is all that is not pure.

    `first`; on each route attempts until one succeeds, `hurries` says so, or the retries are used up; then `next`. At
    the end `capacity` says how long to wait before `again`, and `circuit_open` what to raise instead.
    """

    __slots__ = ("_at", "_left", "_refused", "_request", "_why", "first", "route", "tried")

    def __init__(self, request: APIRequest, first: Route, places: Sequence[Place] = ()) -> None:
        self.first = first
        self.route = first
        """Whose turn it is."""
        self.tried: list[Tried] = []
        """Those left behind, each with why."""
        self._request = request
        self._left: Sequence[Place | Route] = places
        self._at = 0
        self._refused: list[Route] = []
        self._why = ""

    def hurries(self, failure: str) -> bool:
        """Whether the route that would follow wants a call that failed so at once, without a retry; a `refusal` too."""
        taking = (left for left in self._left[self._at :] if failure not in IF_ASKED or failure in left.on)
        following = next(taking, None)
        return following is not None and failure in following.on

    def next(self, after: str | Refused, *, attempts: int = 1) -> Route | None:
        """The route that follows one that is given up: it failed so, after so many attempts, or was refused.

        None at the end, and after what no other route would change.
        """
        here = self.route.dependency
        if not isinstance(after, str):
            self.tried.append(Tried(here, refused=after.reason, retry_at_us=after.retry_at_us))
            self._refused.append(self.route)
            return self._go_on(None, f"{here.name} refused by its breaker")
        self.tried.append(Tried(here, failed=after, attempts=attempts))
        return None if after in EQUALLY_REFUSED else self._go_on(after, f"{here.name} {after}")

    def skip(self, why: str) -> Route | None:
        """The route that follows one whose turn it is, but which cannot take the call as it stands."""
        self.tried.append(Tried(self.route.dependency, skipped=why))
        return self._go_on(None, self._why)

    def capacity(self, now_us: int, *, left_s: float) -> float | None:
        """How long to wait before `again`, if at all: at most a second, for a breaker may close early.

        `left_s`: what is left of the time that the caller allows, the deadline considered. None: no route was refused,
        or none takes calls again within that time.
        """
        due_us = [tried.retry_at_us for tried in self.tried if tried.retry_at_us is not None]
        if not self._refused or not due_us:
            return None
        wait_s = max((min(due_us) - now_us) / _US, SHORTEST_WAIT_S)
        return min(wait_s, LONGEST_WAIT_S) if wait_s <= left_s else None

    def again(self) -> Route:
        """The first of the routes that were refused; the others of them follow. Those that failed are done."""
        self.tried = [tried for tried in self.tried if tried.refused is None]
        self._left, self._at, self._refused = self._refused, 1, []
        first = self._left[0]
        assert isinstance(first, Route)
        self.route = first
        return first

    def circuit_open(self, now_us: int, *, decision: str | None = None) -> CircuitOpen:
        """What to raise where the last that was heard of is a breaker's no."""
        return circuit_open(self.tried, now_us=now_us, decision=decision)

    def _go_on(self, failure: str | None, why: str) -> Route | None:
        self._why = why
        while self._at < len(self._left):
            left = self._left[self._at]
            self._at += 1
            if failure in IF_ASKED and failure not in left.on:
                continue
            route = left if isinstance(left, Route) else self._route_to(left, why)
            if route is not None:
                self.route = route
                return route
        return None

    def _route_to(self, place: Place, why: str) -> Route | None:
        asked = self.first.dependency
        there = place.asked_for(self._request, asked)
        if isinstance(there, str):
            self.tried.append(Tried(place.named_after(asked), skipped=there))
            return None
        if place.send is None and there == asked:
            return None
        return Route(
            there,
            place.send or self.first.send,
            place.adapting(there.model),
            reason=f"{place.fallback.reason}: {why}" if place.fallback.reason else why,
            retries=place.fallback.retries,
            on=place.on,
        )


def _as_it_is(request: APIRequest) -> APIRequest:
    return request
