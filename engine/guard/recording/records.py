"""What a guard needs of a journal."""

from typing import Protocol

from relight.engine.guard.facts import Attempt, Call


class Records(Protocol):
    """Takes facts in microseconds and never blocks. What is handed over is its own from then on."""

    def taken(self, call: Call) -> None:
        """A call begins."""

    def attempted(self, call: Call, attempt: Attempt) -> None:
        """An attempt failed and another one follows, or may follow."""

    def known(self, call: Call, attempt: Attempt | None) -> None:
        """The call is over; `attempt` is its last one, None where there was none since the last `attempted`."""
