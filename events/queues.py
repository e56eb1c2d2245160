"""Queues: federated over regions, one of which leads, and what was copied or handed over between them."""

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


class QueueFailedOver(QueueRuling, type="queues.failed_over"):
    """`primary_region` leads in place of `from_region`; null `task_count`: how many tasks waited there is not known."""

    from_region: Name
    task_count: Count | None = None


class QueueRecovered(QueueRuling, type="queues.recovered"):
    """`primary_region` leads again, as it did before `from_region` stood in for it."""

    from_region: Name
    task_count: Count | None = None


class QueueReplicated(Event, type="queues.replicated", entity="queue_name"):
    """A batch of tasks was copied from one region to another."""

    queue_name: Key
    from_region: Name
    to_region: Name
    task_count: Count
    lag_ms: Count | None = None
