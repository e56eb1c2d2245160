"""Whom a call asks instead of the one that does not answer, or is refused; made when that happens."""

from dataclasses import replace

from anthropic import APIRequest

from relight.engine.guard.breakers.breaker import Refused
from relight.engine.guard.calls.parts import Parts
from relight.engine.guard.calls.steps import CallAny
from relight.engine.guard.facts import Call, Dependency, Failure
from relight.engine.guard.routes.capacity import capacity_s
from relight.engine.guard.routes.chain import Route
from relight.engine.policies.retry import RetryOptions

LEASE_WAIT_US = 50_000
"""A refusal for no longer than this: the fleet's probes are being asked for, and the answer comes in milliseconds."""
LEASE_ASKED = 12
"""How often one call asks for them."""
_US = 1_000_000
_FRAMED = "aws.bedrock"
"""Whose streams are framed in another way than those of the others."""


class Way:
    """A call's route through the chain, and how long it has waited for one that takes calls."""

    __slots__ = ("_capacity_s", "_chain", "_leases", "_parts", "_route", "attempts", "overloads")

    def __init__(
        self, parts: Parts, request: APIRequest, call_next: CallAny, dependency: Dependency, *, asynchronous: bool
    ) -> None:
        self._parts = parts
        self._chain = parts.routes.chain(request, call_next, dependency, asynchronous=asynchronous)
        self._route = self._chain.first
        self._capacity_s = capacity_s(parts.wait_for_capacity_s)
        self._leases = 0
        self.attempts = 0
        """On this route, as are the overloads among them."""
        self.overloads = 0

    @property
    def route(self) -> Route:
        return self._route

    @property
    def retry(self) -> RetryOptions:
        options, retries = self._parts.retry, self._route.retries
        if retries is None:
            return options
        return replace(options, retries=retries, overload_retries=min(retries, options.overload_retries))

    def hurries(self, failure: Failure | str) -> bool:
        """Whether another route is to be taken at once, without a retry on this one."""
        return self._chain.hurries(failure)

    def leave(self, failure: Failure | str, *, streaming: bool) -> bool:
        """Goes on to the next route; False where there is none, and all is as it was.

        `streaming`: the answer has begun, so that only one of the same framing can go on from there.
        """
        framed = self._route.dependency.provider == _FRAMED
        route = self._chain.next(failure, attempts=self.attempts)
        while route is not None and streaming and (route.dependency.provider == _FRAMED) != framed:
            route = self._chain.skip("its streams are framed in another way")
        if route is not None:
            self._take(route)
        return route is not None

    def refused(self, refused: Refused, now_us: int, *, left_s: float) -> float | None:
        """How long to wait before the route is asked, which may be another one now; None: nobody takes the call."""
        if refused.retry_at_us - now_us <= LEASE_WAIT_US and self._leases < LEASE_ASKED:
            self._leases += 1
            return max(refused.retry_at_us - now_us, 1_000) / _US
        if (route := self._chain.next(refused, attempts=self.attempts)) is not None:
            self._take(route)
            return 0.0
        wait_s = self._chain.capacity(now_us, left_s=min(self._capacity_s, left_s))
        if wait_s is not None:
            self._capacity_s -= wait_s
            self._take(self._chain.again())
        return wait_s

    def circuit_open(self, now_us: int, call: Call) -> Exception:
        return self._chain.circuit_open(now_us, decision=call.decision)

    def _take(self, route: Route) -> None:
        self._route = route
        self.attempts = self.overloads = self._leases = 0
