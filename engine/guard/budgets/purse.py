"""What one call holds of its budgets."""

from relight.engine.errors import BudgetExceeded
from relight.engine.guard.calls.outcomes import raised_by
from relight.engine.guard.calls.parts import Parts
from relight.engine.guard.calls.steps import Send
from relight.engine.guard.facts import Attempt, Call
from relight.engine.guard.recording.answers import read_answer, read_json


class Purse:
    """Opened before the first attempt. Raises `BudgetExceeded` then, or before another attempt."""

    __slots__ = ("_call", "_held", "_parts")

    def __init__(self, parts: Parts, call: Call) -> None:
        self._parts = parts
        self._call = call
        self._held = None
        assert parts.budgets is not None
        try:
            self._held = parts.budgets.check(
                call.scope,
                parts.clock.now_us(),
                tenant=parts.tenant,
                dependency=call.dependency,
                body=call.body,
                decision=call.decision,
            )
        except BudgetExceeded:
            raise
        except Exception as error:
            parts.failed("budgets", error)

    def again(self, now_us: int, failed: Send | None) -> None:
        """Before a further attempt; `failed` is the last one."""
        if self._held is None:
            return
        try:
            self._held.again(now_us)
        except BudgetExceeded as exceeded:
            raise exceeded from (None if failed is None else raised_by(failed))
        except Exception as error:
            self._parts.failed("budgets", error)

    def spent(self, attempt: Attempt) -> None:
        """By an attempt that had an answer, or the beginning of one."""
        if self._held is None or (attempt.status is not None and attempt.status >= 300):
            return
        try:
            if attempt.answer is None and attempt.body is not None and attempt.failure is None:
                attempt.answer = read_answer(read_json(attempt.body))
            if attempt.answer is not None or attempt.failure is None:
                usage = None if attempt.answer is None else attempt.answer.usage
                self._held.spent(usage, attempt.dependency, attempt.ended_us or attempt.started_us)
        except Exception as error:
            self._parts.failed("budgets", error)

    def close(self) -> None:
        if self._held is not None:
            self._held.settle(sent=self._call.attempts > 0)
