"""A decision of an agent, recorded as it is made: begun, checkpoints, taken, outcome."""

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from pydantic import JsonValue

from relight.engine import scope
from relight.engine.recorder.receipts import Receipt
from relight.engine.recorder.recorder import Recorder
from relight.events.decisions import (
    DecisionBegun,
    DecisionCheckpointed,
    DecisionOutcomeKnown,
    DecisionTaken,
    Outcome,
)
from relight.events.values import MAX_KEY_LENGTH, Content


class Decision:
    """Use it with `with` or `async with`; recording never waits.

    Leaving normally is a success, an exception a failure (and goes on), a cancellation unknown. `receipt` is that of
    the latest event recorded. What is recorded inside says that the decision caused it.
    """

    def __init__(
        self,
        recorder: Recorder,
        decision_type: str,
        *,
        context: dict[str, JsonValue] | None = None,
        decision: str | None = None,
    ) -> None:
        self.id = decision or recorder.clock.next_id()
        self._recorder = recorder
        self._type = decision_type
        self._context = context or {}
        self._stack = ExitStack()
        self._begun_us = 0
        self.receipt: Receipt | None = None

    def checkpoint(
        self, checkpoint_type: str, state: dict[str, JsonValue] | None = None, *, content: Content | None = None
    ) -> Receipt:
        """A step on the way; `content` is what `relight.content()` returned for the bulk of it."""
        event = DecisionCheckpointed(
            decision=self.id, checkpoint_type=checkpoint_type, state_snapshot=state or {}, content=content
        )
        self.receipt = self._recorder.record(event)
        return self.receipt

    def take(self, decision_taken: str, *, reasoning: str | None = None, confidence: float | None = None) -> Receipt:
        """The choice, why, and how sure the agent is (0..1)."""
        here = scope.current()
        event = DecisionTaken(
            decision=self.id,
            decision_type=self._type,
            agent=here.agent,
            task=here.task,
            context=self._context,
            decision_taken=decision_taken,
            reasoning=reasoning,
            confidence=confidence,
        )
        self.receipt = self._recorder.record(event)
        return self.receipt

    def __enter__(self) -> Self:
        here = scope.current()
        self._begun_us = self._recorder.clock.now_us()
        event = DecisionBegun(
            decision=self.id,
            decision_type=self._type,
            agent=here.agent,
            task=here.task,
            context=self._context,
        )
        self.receipt = self._recorder.record(event)
        self._stack.enter_context(
            scope.entered(causation=self.receipt.id, correlation=here.correlation or self.receipt.id)
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        match error:
            case None:
                outcome = Outcome.SUCCESS
            case Exception():
                outcome = Outcome.FAILURE
            case _:
                outcome = Outcome.UNKNOWN
        event = DecisionOutcomeKnown(
            decision=self.id,
            outcome=outcome,
            error_class=None if error is None else _class_name(error),
            latency_ms=max(0, self._recorder.clock.now_us() - self._begun_us) // 1_000,
        )
        try:
            self.receipt = self._recorder.record(event)
        finally:
            self._stack.close()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


def _class_name(error: BaseException) -> str:
    """Cut to what a key can hold, in UTF-8."""
    return type(error).__qualname__.encode()[:MAX_KEY_LENGTH].decode(errors="ignore")
