"""The guard: a middleware of the SDK's clients that retries, breaks and records every call."""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from anthropic import APIRequest, APIResponse, AsyncAPIResponse, AsyncCallNext, CallNext, Middleware

from relight.engine.guard.breakers.breakers import Breakers
from relight.engine.guard.budgets.budgets import Budgets
from relight.engine.guard.calls.core import Conduct
from relight.engine.guard.calls.deadlines import deadline_us
from relight.engine.guard.calls.driving import AsyncDriver, SyncDriver
from relight.engine.guard.calls.first import First
from relight.engine.guard.calls.parts import Parts
from relight.engine.guard.calls.waits import Waits
from relight.engine.guard.clients.known_clients import KnownClients
from relight.engine.guard.health import GuardHealth, Guarding
from relight.engine.guard.policy import GuardPolicy
from relight.engine.guard.recording.content import Redact
from relight.engine.guard.recording.journal import Journal
from relight.engine.guard.recording.records import Quickened, QuickRecords, Records
from relight.engine.guard.routes.chain import Routes
from relight.engine.guard.routes.fallback import Fallback
from relight.engine.recorder.recorder import Recorder
from relight.engine.runtime import Relight
from relight.engine.sync import SyncRelight


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
        self._parts = Parts(
            self.policy,
            clock=clock,
            name=clock.next_id(),
            tenant=self.recorder.options.tenant,
            waits=waits,
            journal=self._journal(journal, redact),
            breakers=breakers or Breakers.beside(self.recorder),
            routes=routes,
            budgets=budgets,
            clients=KnownClients(provider, region),
        )
        self._told = (self.recorder, self.policy, region, tuple(fallbacks), budgets, breakers, journal, tuple(redact))
        stream_bytes = self._parts.journal.stream_bytes
        self._sync = SyncDriver(clock, waits, stream_bytes=stream_bytes)
        self._async = AsyncDriver(clock, waits, stream_bytes=stream_bytes)
        self.recorder.beside(Guarding, Guarding).guards.add(self)

    def handle(self, request: APIRequest, call_next: CallNext) -> APIResponse[Any]:
        first = First(self._parts, request, call_next, asynchronous=False)
        if first.may:
            try:
                self._sync.send(first)
            except BaseException as error:
                first.ended(error)
                raise
            if (response := first.worked()) is not None:
                return cast("APIResponse[Any]", response)
        steps = Conduct(self._parts, first, asynchronous=False).steps()
        return self._sync.drive(steps, stream_until_us=deadline_us())

    async def handle_async(self, request: APIRequest, call_next: AsyncCallNext) -> AsyncAPIResponse[Any]:
        first = First(self._parts, request, call_next, asynchronous=True)
        if first.may:
            try:
                await self._async.send(first)
            except BaseException as error:
                first.ended(error)
                raise
            if (response := first.worked()) is not None:
                return cast("AsyncAPIResponse[Any]", response)
        steps = Conduct(self._parts, first, asynchronous=True).steps()
        return await self._async.drive(steps, stream_until_us=deadline_us())

    def does_as(self, other: "Guard") -> bool:
        """Whether it records to the same place, and was told the same."""
        return self._told == other._told

    def health(self) -> GuardHealth:
        """What it has done, and what is wrong with it or with how it is used."""
        return GuardHealth(
            multiplying_clients=self._parts.clients.multiplying,
            doubled_clients=self._parts.clients.doubled,
            retried_outside=self._parts.retried_outside,
            faults=dict(self._parts.faults),
        )

    def _journal(self, records: Records | None, redact: Sequence[Redact]) -> QuickRecords:
        if records is not None:
            return records if isinstance(records, Journal) else Quickened(records)
        journal = self.recorder.beside(Journal, partial(Journal, self.recorder))
        return journal.redacting(redact) if redact else journal
