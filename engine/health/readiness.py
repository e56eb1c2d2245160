"""Whether this process takes requests: said by whoever starts and stops it, read by the endpoints."""

from enum import StrEnum


class Phase(StrEnum):
    """Of a process that serves."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Readiness:
    """The phase now, and why; starting at first. `started` stays true once it was ready."""

    def __init__(self) -> None:
        self.phase = Phase.STARTING
        self.reason = "starting"
        self.started = False

    def starting(self, reason: str) -> None:
        self.phase, self.reason = Phase.STARTING, reason

    def ready(self) -> None:
        self.phase, self.reason, self.started = Phase.READY, "", True

    def draining(self, reason: str = "stopping: ask another process") -> None:
        self.phase, self.reason = Phase.DRAINING, reason
