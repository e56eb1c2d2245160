"""A journal that writes nothing down."""

from relight.engine.guard.facts import Attempt, Call, Failure


class Silence:
    """For a guard that is to retry and break only."""

    def taken(self, call: Call) -> None:
        pass

    def attempted(self, call: Call, attempt: Attempt) -> None:
        pass

    def known(self, call: Call, attempt: Attempt | None) -> None:
        pass

    def depended(self, service_name: str, *, started_us: int, latency_us: int, failure: Failure | str | None) -> None:
        pass
