"""Writes down what a guarded call does: taken, attempts, outcome."""

from typing import Protocol

from relight.engine.guard.facts import Attempt, Call, Failure


class Journal(Protocol):
    """Takes facts in microseconds and never blocks; events are made of them later, in the recorder's own thread.

    What is handed over belongs to the journal from then on: nobody changes it any more, but for the fields of a `Call`
    that `known` reads.
    """

    def taken(self, call: Call) -> None:
        """A call begins."""

    def attempted(self, call: Call, attempt: Attempt) -> None:
        """An attempt failed and another one may follow."""

    def known(self, call: Call, attempt: Attempt | None) -> None:
        """The call is over; `attempt` is its last one, None where nothing was sent."""

    def depended(self, service_name: str, *, started_us: int, latency_us: int, failure: Failure | str | None) -> None:
        """A call to a dependency that is no model worked, or failed."""
