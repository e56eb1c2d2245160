"""The guard: a middleware of the SDK's clients that retries, breaks and records every call."""

from collections.abc import Sequence
from functools import partial
from itertools import count
from typing import Any, cast

from anthropic import APIRequest, APIResponse, AsyncAPIResponse, AsyncCallNext, CallNext, Middleware

from relight.engine import scope
from relight.engine.guard.breakers.breakers import Breakers
from relight.engine.guard.budgets.budgets import Budgets
from relight.engine.guard.calls.core import Conduct
from relight.engine.guard.calls.deadlines import deadline_us
from relight.engine.guard.calls.driving import AsyncDriver, SyncDriver
from relight.engine.guard.calls.first import First
from relight.engine.guard.calls.parts import Parts
from relight.engine.guard.calls.steps import CallAny
from relight.engine.guard.calls.waits import Waits
from relight.engine.guard.clients.endpoints import model_of, operation
from relight.engine.guard.clients.known_clients import KnownClients, is_model
from relight.engine.guard.clients.tracing import traceparent
from relight.engine.guard.facts import Call
from relight.engine.guard.health import GuardHealth, Guarding
from relight.engine.guard.policy import GuardPolicy
from relight.engine.guard.recording.content import Redact
from relight.engine.guard.recording.journal import Journal
from relight.engine.guard.recording.records import Records
from relight.engine.guard.routes.chain import Routes
from relight.engine.guard.routes.fallback import Fallback
from relight.engine.recorder.recorder import Recorder
from relight.engine.runtime import Relight
from relight.engine.sync import SyncRelight

_US = 1_000_000


class Guard(Middleware):
    """`AsyncAnthropic(max_retries=0, middleware=[Guard(recorder)])`, the innermost; `relight.guarded` does the same.

    It serves any number of clients, of both kinds. `provider` and `region` name what they call, where the clients do
    not tell. `redact`: hooks that change what is recorded of requests and answers. `waits` is replaced in tests.
    """

    def __init__(
        self,
        recorder: Recorder | Relight | SyncRelight,
        policy: GuardPolicy | None = None,
        *,
        provider: str | None = None,
        region: str | None = None,
        fallbacks: Sequence[Fallback] = (),
        budgets: Budgets | None = None,
        breakers: Breakers | None = None,
        journal: Records | None = None,
        redact: Sequence[Redact] = (),
        waits: Waits | None = None,
        asynchronous: bool | None = None,
    ) -> None:
        self.policy = policy or GuardPolicy()
        self.recorder = recorder if isinstance(recorder, Recorder) else recorder.recorder
        clock, waits = self.recorder.clock, waits or Waits()
        routes = Routes(fallbacks, provider=provider, asynchronous=asynchronous)
        self._unserved = None if routes.asynchronous is None else not routes.asynchronous
        """The kind of clients that its fallbacks cannot stand in for."""
        self._parts = Parts(
            self.policy,
            clock=clock,
            tenant=self.recorder.options.tenant,
            waits=waits,
            journal=journal or self._journal(redact),
            breakers=breakers or Breakers.beside(self.recorder),
            routes=routes,
            budgets=budgets,
        )
        self._told = (self.recorder, self.policy, region, tuple(fallbacks), budgets, breakers, journal, tuple(redact))
        self._clients = KnownClients(provider, region)
        self._sync = SyncDriver(clock, waits)
        self._async = AsyncDriver(clock, waits)
        self._deadline_us = round(self.policy.deadline_s * _US)
        self._name = clock.next_id()
        self._numbers = count(1)
        self._retried_outside = 0
        self.recorder.beside(Guarding, Guarding).guards.add(self)

    def handle(self, request: APIRequest, call_next: CallNext) -> APIResponse[Any]:
        until_us, parts = deadline_us(), self._parts
        first = self._begin(request, call_next, until_us, False)
        if first.may:
            try:
                self._sync.send(first)
            except BaseException as error:
                first.ended(parts, error)
                raise
            if first.worked(parts):
                return cast("APIResponse[Any]", first.response)
        return self._sync.drive(Conduct(parts, first, asynchronous=False).steps(), stream_until_us=until_us)

    async def handle_async(self, request: APIRequest, call_next: AsyncCallNext) -> AsyncAPIResponse[Any]:
        until_us, parts = deadline_us(), self._parts
        first = self._begin(request, call_next, until_us, True)
        if first.may:
            try:
                await self._async.send(first)
            except BaseException as error:
                first.ended(parts, error)
                raise
            if first.worked(parts):
                return cast("AsyncAPIResponse[Any]", first.response)
        return await self._async.drive(Conduct(parts, first, asynchronous=True).steps(), stream_until_us=until_us)

    def does_as(self, other: "Guard") -> bool:
        """Whether it records to the same place, and was told the same."""
        return self._told == other._told

    def health(self) -> GuardHealth:
        """What it has done, and what is wrong with it or with how it is used."""
        return GuardHealth(
            multiplying_clients=self._clients.multiplying,
            doubled_clients=self._clients.doubled,
            retried_outside=self._retried_outside,
            faults=dict(self._parts.faults),
        )

    def _journal(self, redact: Sequence[Redact]) -> Journal:
        journal = self.recorder.beside(Journal, partial(Journal, self.recorder))
        return journal.redacting(redact) if redact else journal

    def _begin(self, request: APIRequest, call_next: CallAny, until_us: int | None, asynchronous: bool) -> First:
        parts, options = self._parts, request.options
        if asynchronous is self._unserved:
            parts.routes.stand_in(asynchronous=asynchronous)
        client = self._clients.of(call_next)
        body = options.json_data
        dependency, breaker = client.lane(model_of(body), parts)
        started_us = parts.clock.now_us()
        own_us = started_us + self._deadline_us
        call = Call(
            f"{self._name}-{next(self._numbers)}",
            operation(options.method, options.url),
            dependency,
            scope.current(),
            started_us,
            body if isinstance(body, dict) else None,
            request.stream,
            client.max_retries,
            traceparent(),
        )
        if request.retries_taken:
            self._retried_outside += 1
        return First(
            parts,
            call,
            breaker,
            request,
            call_next,
            own_us if until_us is None or until_us > own_us else until_us,
            not request.stream and is_model(request.cast_to),
        )
