"""The guard: a middleware of the SDK's clients that retries, breaks and records every call."""

from collections.abc import Sequence
from itertools import count
from typing import Any

from anthropic import APIRequest, APIResponse, AsyncAPIResponse, AsyncCallNext, CallNext, Middleware

from relight.engine import scope
from relight.engine.guard.core import conduct
from relight.engine.guard.deadlines import deadline_us
from relight.engine.guard.driving import AsyncDriver, SyncDriver
from relight.engine.guard.endpoints import model_of, operation
from relight.engine.guard.facts import Call
from relight.engine.guard.fallback import Fallback
from relight.engine.guard.health import GuardHealth
from relight.engine.guard.journal import Journal
from relight.engine.guard.known_clients import KnownClients, is_model
from relight.engine.guard.parts import Parts
from relight.engine.guard.policy import GuardPolicy
from relight.engine.guard.requests import is_repeatable
from relight.engine.guard.silence import Silence
from relight.engine.guard.steps import CallAny, Steps
from relight.engine.guard.tracing import traceparent
from relight.engine.guard.waits import Waits
from relight.engine.recorder.recorder import Recorder
from relight.engine.runtime import Relight
from relight.engine.sync import SyncRelight

_US = 1_000_000


class Guard(Middleware):
    """`AsyncAnthropic(max_retries=0, middleware=[Guard(recorder)])`, the innermost; `relight.guarded` does the same.

    It serves any number of clients, of both kinds. `provider` and `region` name what they call, where the clients do
    not tell. `waits` is replaced in tests.
    """

    def __init__(
        self,
        recorder: Recorder | Relight | SyncRelight,
        policy: GuardPolicy | None = None,
        *,
        provider: str | None = None,
        region: str | None = None,
        fallbacks: Sequence[Fallback] = (),
        journal: Journal | None = None,
        waits: Waits | None = None,
    ) -> None:
        self.policy = policy or GuardPolicy()
        self.recorder = recorder if isinstance(recorder, Recorder) else recorder.recorder
        clock = self.recorder.clock
        waits = waits or Waits()
        self._parts = Parts(
            clock=clock,
            waits=waits,
            retry=self.policy.retry,
            journal=journal or Silence(),
        )
        self._clients = KnownClients(provider, region)
        self._fallbacks = tuple(fallbacks)
        self._told = (self.recorder, self.policy, provider, region, self._fallbacks)
        self._sync = SyncDriver(clock, waits)
        self._async = AsyncDriver(clock, waits)
        self._deadline_us = round(self.policy.deadline_s * _US)
        self._name = clock.next_id()
        self._numbers = count(1)
        self._retried_outside = 0

    def handle(self, request: APIRequest, call_next: CallNext) -> APIResponse[Any]:
        until_us = deadline_us()
        return self._sync.drive(self._steps(request, call_next, until_us), stream_until_us=until_us)

    async def handle_async(self, request: APIRequest, call_next: AsyncCallNext) -> AsyncAPIResponse[Any]:
        until_us = deadline_us()
        return await self._async.drive(self._steps(request, call_next, until_us), stream_until_us=until_us)

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

    def _steps(self, request: APIRequest, call_next: CallAny, until_us: int | None) -> Steps:
        options = request.options
        client = self._clients.of(call_next)
        body = options.json_data
        started_us = self._parts.clock.now_us()
        own_us = started_us + self._deadline_us
        call = Call(
            f"{self._name}-{next(self._numbers)}",
            operation(options.method, options.url),
            client.dependency(model_of(body)),
            scope.current(),
            started_us,
            body if isinstance(body, dict) else None,
            request.stream,
            client.max_retries,
            traceparent(),
        )
        if request.retries_taken:
            self._retried_outside += 1
        return conduct(
            self._parts,
            call,
            request,
            call_next,
            until_us=own_us if until_us is None else min(own_us, until_us),
            parses=not request.stream and is_model(request.cast_to),
            repeatable=is_repeatable(options),
        )
