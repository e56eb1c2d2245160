"""Queues: federated over regions, one of which leads, and what was copied or handed over between them."""

from typing import Any

from relight.events.base import Control, Event
from relight.events.values import Count, Key, Keys, Name, Text


class QueueRuling(Control, policy="federation", entity="queue_name"):
    """What every ruling on a queue carries: its whole routing from here on."""

    queue_name: Key
    primary_region: Name
    replica_regions: Keys
    is_active: bool
    reason: Text


class QueueDeclared(QueueRuling, type="queues.declared"):
    """The queue is to be like this: created, changed, or withdrawn (`is_active` false)."""


def _unchanged(data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 lacked a field that may be absent."""
    return data


class QueueHandover(QueueRuling):
    """The lead moves to `primary_region` from `from_region`; `home_region` is who leads it where nothing is the matter.

    Null `task_count`: how many tasks waited is not known.
    """

    from_region: Name
    task_count: Count | None = None
    home_region: Name | None = None

    @property
    def written_version(self) -> int:
        return 1 if self.home_region is None else self.VERSION


class QueueFailedOver(QueueHandover, type="queues.failed_over", version=2, upcasts={1: _unchanged}):
    """`primary_region` leads in place of `from_region`."""


class QueueRecovered(QueueHandover, type="queues.recovered", version=2, upcasts={1: _unchanged}):
    """`primary_region` leads again, as it did before `from_region` stood in for it."""


class QueueReplicated(Event, type="queues.replicated", entity="queue_name"):
    """A batch of tasks was copied from one region to another."""

    queue_name: Key
    from_region: Name
    to_region: Name
    task_count: Count
    lag_ms: Count | None = None
