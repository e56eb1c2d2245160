"""Whom a call asks now, by leave of that one's breaker, and whom it asks next."""

from dataclasses import replace

from anthropic import APIRequest

from relight.engine.guard.breaker import Breaker, Permit, Refused
from relight.engine.guard.capacity import capacity_s
from relight.engine.guard.chain import Chain, Route
from relight.engine.guard.events import AGAINST_THE_DEPENDENCY
from relight.engine.guard.facts import Attempt, Call, Dependency, Failure
from relight.engine.guard.parts import Parts
from relight.engine.guard.steps import CallAny, Send
from relight.engine.policies.retry import RetryOptions

LEASE_WAIT_US = 50_000
"""A refusal for no longer than this: the fleet's probes are being asked for, and the answer comes in milliseconds."""
LEASE_ASKED = 12
"""How often one call asks for them."""
_US = 1_000_000
_FRAMED = "aws.bedrock"
"""Whose streams are framed in another way than those of the others."""


class Way:
    """The route that is taken, with its breaker; the chain of the others is made when it is needed.

    A permit that was given is answered once: the attempt `worked`, `failed`, or tells nothing of the dependency.
    """

    __slots__ = (
        "_asynchronous",
        "_breaker",
        "_call_next",
        "_capacity_s",
        "_chain",
        "_leases",
        "_parts",
        "_permit",
        "_request",
        "_route",
        "attempts",
        "dependency",
        "overloads",
    )

    def __init__(
        self,
        parts: Parts,
        request: APIRequest,
        call_next: CallAny,
        dependency: Dependency,
        breaker: Breaker | None,
        *,
        asynchronous: bool,
    ) -> None:
        self.dependency = dependency
        self.attempts = 0
        """On this route, as are the overloads among them."""
        self.overloads = 0
        self._parts = parts
        self._request = request
        self._call_next = call_next
        self._breaker = breaker
        self._asynchronous = asynchronous
        self._permit: Permit | None = None
        self._chain: Chain | None = None
        self._route: Route | None = None
        self._capacity_s: float | None = None
        self._leases = 0

    @property
    def reason(self) -> str | None:
        """Why this is not the dependency that the caller named."""
        return None if self._route is None else self._route.reason

    @property
    def retry(self) -> RetryOptions:
        options = self._parts.retry
        if self._route is None or self._route.retries is None:
            return options
        return replace(options, retries=self._route.retries)

    def permitted(self, now_us: int) -> Refused | None:
        """None where an attempt may be made; then it has to be answered for."""
        if self._breaker is None:
            return None
        permit = self._breaker.permit(now_us)
        if isinstance(permit, Refused):
            return permit
        self._permit = permit
        return None

    def send(self, left_s: float, parses: bool) -> Send:
        self.attempts += 1
        if self._route is None:
            return Send(self._request, self._call_next, left_s, parses)
        return Send(self._route.adapt(self._request), self._route.send, left_s, parses)

    def answered(self, attempt: Attempt) -> None:
        """Tells the breaker what came of the attempt; once is enough."""
        permit, self._permit = self._permit, None
        if permit is None or self._breaker is None:
            return
        failure = attempt.failure
        try:
            if failure is None:
                until_us = attempt.first_token_us or attempt.ended_us or attempt.started_us
                self._breaker.succeeded(permit, until_us - attempt.started_us)
            elif failure in AGAINST_THE_DEPENDENCY:
                self._breaker.failed(permit, failure)
            else:
                self._breaker.released(permit)
        except Exception as error:
            self._parts.failed("breaker", error)

    def hurries(self, failure: Failure | str) -> bool:
        """Whether another route is to be taken at once, without a retry on this one."""
        return bool(self._parts.routes) and self._chained().hurries(failure)

    def leave(self, failure: Failure | str, *, streaming: bool = False) -> bool:
        """Goes on to the next route; False where there is none, and all is as it was.

        `streaming`: the answer has begun, so that only one of the same framing can go on from there.
        """
        if not self._parts.routes:
            return False
        framed = self.dependency.provider == _FRAMED
        route = self._chained().next(failure, attempts=self.attempts)
        while route is not None and streaming and (route.dependency.provider == _FRAMED) != framed:
            route = self._chained().next(failure, attempts=0)
        if route is not None:
            self._take(route)
        return route is not None

    def wait_s(self, refused: Refused, now_us: int, *, left_s: float) -> float | None:
        """What to do after a refusal: wait so long (0: not at all, there is another route); None: give up."""
        if refused.retry_at_us - now_us <= LEASE_WAIT_US and self._leases < LEASE_ASKED:
            self._leases += 1
            self._waits()
            return max(refused.retry_at_us - now_us, 1_000) / _US
        chain = self._chained()
        if (route := chain.next(refused)) is not None:
            self._take(route)
            return 0.0
        if self._capacity_s is None:
            self._capacity_s = capacity_s(self._parts.wait_for_capacity_s)
        wait_s = chain.capacity(now_us, left_s=min(self._capacity_s, left_s))
        if wait_s is None:
            return None
        self._capacity_s -= wait_s
        self._waits()
        self._take(chain.again())
        return wait_s

    def circuit_open(self, now_us: int, call: Call) -> Exception:
        return self._chained().circuit_open(now_us, decision=call.decision)

    def _waits(self) -> None:
        if self._breaker is not None:
            self._breaker.waited_for()

    def _take(self, route: Route) -> None:
        self._route = route
        self.dependency = route.dependency
        self._breaker = self._parts.breaker(route.dependency)
        self.attempts = self.overloads = self._leases = 0

    def _chained(self) -> Chain:
        if self._chain is None:
            self._chain = self._parts.routes.chain(
                self._request, self._call_next, self.dependency, asynchronous=self._asynchronous
            )
        return self._chain
