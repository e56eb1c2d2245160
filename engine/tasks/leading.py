"""Which region leads a queue: the one that was declared, or whoever stands in for it while it is switched off."""

from collections.abc import Callable
from typing import Protocol

from relight.events.envelope import Recorded
from relight.events.queues import QueueRuling


class RegionRouting(Protocol):
    """What is asked of a fleet's routing table (`relight.engine.regions.routing`)."""

    @property
    def active(self) -> tuple[str, ...]: ...

    def is_active(self, region: str) -> bool: ...

    def moved(self, region: str) -> str: ...

    def on_change(self, callback: Callable[[], None]) -> None: ...


class Leading:
    """Without a routing there is one region, and it leads every queue."""

    def __init__(self, region: str, routing: RegionRouting | None) -> None:
        self._region = region
        self._routing = routing
        self._declared: dict[str, tuple[int, QueueRuling]] = {}

    def fold(self, event: Recorded[QueueRuling]) -> None:
        rev, known = event.rev or 0, self._declared.get(event.data.queue_name)
        if known is None or known[0] < rev:
            self._declared[event.data.queue_name] = (rev, event.data)

    def declared_queue(self, queue: str) -> QueueRuling | None:
        known = self._declared.get(queue)
        return None if known is None else known[1]

    def leader(self, queue: str) -> str:
        """The region that gives out this queue's tasks; the first of the active ones leads what nobody declared."""
        if self._routing is None:
            return self._region
        if (known := self._declared.get(queue)) is not None:
            return self._routing.moved(known[1].primary_region)
        active = self._routing.active
        return active[0] if active else self._region

    def leads(self, queue: str) -> bool:
        return self.leader(queue) == self._region

    def gives(self, queue: str) -> bool:
        """Whether its tasks are given out here: not those of a queue that was withdrawn."""
        known = self._declared.get(queue)
        return self.leads(queue) and (known is None or known[1].is_active)

    def takes_work(self, region: str) -> bool:
        """Whether workers of that region are given tasks: not while it drains or is switched off."""
        return self._routing is None or self._routing.is_active(region)
