"""What a guard works with. What fails here never fails a call that would have worked: it is counted and logged."""

import logging
from collections import Counter

from relight.engine.clock import Clock
from relight.engine.guard.breakers.breaker import Breaker, Permit, Refused
from relight.engine.guard.breakers.breakers import Breakers
from relight.engine.guard.budgets.budgets import Budgets
from relight.engine.guard.calls.waits import Waits
from relight.engine.guard.facts import Attempt, Call, Dependency
from relight.engine.guard.policy import GuardPolicy
from relight.engine.guard.recording.events import AGAINST_THE_DEPENDENCY
from relight.engine.guard.recording.records import Records
from relight.engine.guard.routes.chain import Routes

log = logging.getLogger(__name__)


class Parts:
    """The journal and the rest of one guard, as its calls use them."""

    __slots__ = (
        "_breaker_policy",
        "_breakers",
        "budgets",
        "clock",
        "falls_back",
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
        self.falls_back = bool(routes)
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
