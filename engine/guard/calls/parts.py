"""What a guard works with. What fails here never fails a call that would have worked: it is counted and logged."""

import logging
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING

from relight.engine.clock import Clock
from relight.engine.guard.breakers.breaker import Breaker, Permit, Refused
from relight.engine.guard.breakers.breakers import Breakers
from relight.engine.guard.budgets.budgets import Budgets
from relight.engine.guard.calls.waits import Waits
from relight.engine.guard.facts import Attempt, Call, Dependency
from relight.engine.guard.policy import GuardPolicy
from relight.engine.guard.recording.events import AGAINST_THE_DEPENDENCY
from relight.engine.guard.recording.records import QuickCall, QuickRecords
from relight.engine.guard.routes.chain import Routes

if TYPE_CHECKING:
    from relight.engine.guard.clients.known_clients import KnownClients

_US = 1_000_000

log = logging.getLogger(__name__)


class Parts:
    """The journal and the rest of one guard, as its calls use them."""

    __slots__ = (
        "_breaker_policy",
        "_breakers",
        "budgets",
        "clients",
        "clock",
        "deadline_s",
        "deadline_us",
        "falls_back",
        "faults",
        "journal",
        "name",
        "now_ns",
        "numbers",
        "retried_outside",
        "retry",
        "routes",
        "straight",
        "tenant",
        "unserved",
        "wait_for_capacity_s",
        "waits",
    )

    def __init__(
        self,
        policy: GuardPolicy,
        *,
        clock: Clock,
        name: str,
        tenant: str,
        waits: Waits,
        journal: QuickRecords,
        breakers: Breakers | None,
        routes: Routes,
        budgets: Budgets | None,
        clients: "KnownClients",
    ) -> None:
        self.clock = clock
        self.name = name
        self.tenant = tenant
        self.waits = waits
        self.journal = journal
        self.now_ns = clock.quick_reader()
        self.numbers = count(1)
        self.retried_outside = 0
        self.clients = clients
        self.unserved = None if routes.asynchronous is None else not routes.asynchronous
        """The kind of clients that its fallbacks cannot stand in for."""
        self.routes = routes
        self.falls_back = bool(routes)
        self.budgets = budgets
        self.straight = budgets is None and not routes
        """Whether a call whose first attempt works needs nothing else."""
        self.retry = policy.retry
        self.deadline_s = policy.deadline_s
        self.deadline_us = round(policy.deadline_s * _US)
        self.wait_for_capacity_s = policy.wait_for_capacity_s
        self._breakers = breakers
        self._breaker_policy = policy.breaker
        self.faults: Counter[str] = Counter()
        """How often which part failed."""

    def begun(self, call: QuickCall) -> None:
        try:
            self.journal.begun(call)
        except Exception as error:
            self.failed("journal", error)

    def attempted(self, call: Call, attempt: Attempt) -> None:
        try:
            self.journal.attempted(call, attempt)
        except Exception as error:
            self.failed("journal", error)

    def known(self, call: Call, attempt: Attempt | None) -> None:
        try:
            self.journal.known(call, attempt)
        except Exception as error:
            self.failed("journal", error)

    def breaker(self, dependency: Dependency) -> Breaker | None:
        """None where nothing is broken: the policy says so, or the name is none for a breaker."""
        if self._breakers is None or self._breaker_policy is None:
            return None
        try:
            return self._breakers.of_model(dependency, self._breaker_policy)
        except Exception as error:
            self.failed("breaker", error)
            return None

    def asked(self, breaker: Breaker, now_us: int) -> Permit | Refused | None:
        """Whether a call may pass; None, as a breaker does not know that fails."""
        try:
            return breaker.permit(now_us)
        except Exception as error:
            self.failed("breaker", error)
            return None

    def answered(self, breaker: Breaker, permit: Permit, attempt: Attempt) -> None:
        """Tells a breaker what came of an attempt."""
        failure = attempt.failure
        try:
            if failure is None:
                until_us = attempt.first_token_us or attempt.ended_us or attempt.started_us
                breaker.succeeded(permit, until_us - attempt.started_us)
            elif failure in AGAINST_THE_DEPENDENCY:
                breaker.failed(permit, failure)
            else:
                breaker.released(permit)
        except Exception as error:
            self.failed("breaker", error)

    def failed(self, part: str, error: Exception) -> None:
        """Never says the error's message: it may hold what was sent."""
        self.faults[part] += 1
        log.error(
            "the guard's %s failed with %s: the call goes on without it (%d so far)",
            part,
            type(error).__name__,
            self.faults[part],
            extra={"action": "guard_part_failed"},
        )
