"""What a guard works with. What fails here never fails a call that would have worked: it is counted and logged."""

import logging
from collections import Counter

from relight.engine.clock import Clock
from relight.engine.guard.breaker import Breaker
from relight.engine.guard.breakers import Breakers
from relight.engine.guard.budgets import Budgets
from relight.engine.guard.chain import Routes
from relight.engine.guard.facts import Attempt, Call, Dependency
from relight.engine.guard.policy import GuardPolicy
from relight.engine.guard.records import Records
from relight.engine.guard.waits import Waits

log = logging.getLogger(__name__)


class Parts:
    """The journal and the rest of one guard, as its calls use them."""

    __slots__ = (
        "_breaker_policy",
        "_breakers",
        "budgets",
        "clock",
        "faults",
        "journal",
        "retry",
        "routes",
        "tenant",
        "wait_for_capacity_s",
        "waits",
    )

    def __init__(
        self,
        policy: GuardPolicy,
        *,
        clock: Clock,
        tenant: str,
        waits: Waits,
        journal: Records,
        breakers: Breakers | None,
        routes: Routes,
        budgets: Budgets | None,
    ) -> None:
        self.clock = clock
        self.tenant = tenant
        self.waits = waits
        self.journal = journal
        self.routes = routes
        self.budgets = budgets
        self.retry = policy.retry
        self.wait_for_capacity_s = policy.wait_for_capacity_s
        self._breakers = breakers
        self._breaker_policy = policy.breaker
        self.faults: Counter[str] = Counter()
        """How often which part failed."""

    def taken(self, call: Call) -> None:
        try:
            self.journal.taken(call)
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
            return self._breakers.of(dependency.name, self._breaker_policy)
        except Exception as error:
            self.failed("breaker", error)
            return None

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
