"""What the fake saw of one request."""

from dataclasses import dataclass
from typing import Any

from relight.engine.fake.asked import Asked
from relight.engine.fake.steps import Step
from relight.engine.fake.wire import Received


@dataclass(slots=True)
class Seen:
    number: int
    """From 0, in the order of arrival."""
    arrived_s: float
    """Of the monotonic clock, as `ended_s`."""
    received: Received
    asked: Asked
    step: Step
    request_id: str
    """What its answer says."""
    ended_s: float | None = None
    hung_up: bool = False
    """The client went before all was sent."""

    @property
    def method(self) -> str:
        return self.received.method

    @property
    def path(self) -> str:
        """With the query, as in the request line."""
        return self.received.target

    @property
    def headers(self) -> dict[str, str]:
        """Names in lower case."""
        return self.received.headers

    @property
    def body(self) -> bytes:
        return self.received.body

    @property
    def json(self) -> dict[str, Any]:
        """Empty where the body is no JSON object."""
        return self.asked.body

    @property
    def misbehaved(self) -> str | None:
        """In a word what was wrong with the answer; None for a good one."""
        if self.step.fault is not None:
            return self.step.fault
        return str(self.step.status) if self.step.status >= 300 else None
