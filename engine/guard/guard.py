"""The guard: a middleware of the SDK's clients that retries, breaks and records every call."""

from collections.abc import Sequence
from functools import partial

from relight.engine.guard.breakers.breakers import Breakers
from relight.engine.guard.budgets.budgets import Budgets
from relight.engine.guard.calls.parts import Parts
from relight.engine.guard.calls.straight import Straight
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


class Guard(Straight):
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
        parts = Parts(
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
        super().__init__(parts)
        self._told = (self.recorder, self.policy, region, tuple(fallbacks), budgets, breakers, journal, tuple(redact))
        self.recorder.beside(Guarding, Guarding).guards.add(self)

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
