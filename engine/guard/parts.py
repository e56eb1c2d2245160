"""What a guard works with. What fails here never fails a call that would have worked: it is counted and logged."""

import logging
from collections import Counter

from relight.engine.clock import Clock
from relight.engine.guard.facts import Attempt, Call
from relight.engine.guard.journal import Journal
from relight.engine.guard.waits import Waits
from relight.engine.policies.retry import RetryOptions

log = logging.getLogger(__name__)


class Parts:
    """The journal and the rest of one guard, as its calls use them."""

    __slots__ = ("clock", "faults", "journal", "retry", "waits")

    def __init__(self, *, clock: Clock, waits: Waits, retry: RetryOptions, journal: Journal) -> None:
        self.clock = clock
        self.waits = waits
        self.retry = retry
        self.journal = journal
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
