"""Tasks: who owns one, under which epoch, and how ownership moved when an agent or a region was lost."""

from relight.events.base import Control, Event
from relight.events.values import Content, Key, Name, Text, Time


class TaskRuling(Control, policy="reassignment", entity="task"):
    """What every ruling on a task carries; the event's `rev` is the task's epoch."""

    task: Key


class TaskSubmitted(TaskRuling, type="tasks.submitted"):
    """The task exists and waits for an owner."""

    queue: Key
    payload: Content | None = None


class TaskAssigned(TaskRuling, type="tasks.assigned"):
    """The task has its first owner, or a new one after it was given back."""

    owner: Key
    owner_region: Name


class TaskReassigned(TaskRuling, type="tasks.reassigned"):
    """The owner was lost: another holds the task under a higher epoch, and the old epoch can no longer commit."""

    owner: Key
    owner_region: Name
    from_owner: Key
    from_region: Name
    reason: Text


class TaskCompleted(TaskRuling, type="tasks.completed"):
    """The current epoch's owner has finished it."""

    result: Content | None = None


class TaskFailed(TaskRuling, type="tasks.failed"):
    """The task is given up."""

    reason: Text


class TaskMigration(Event, entity="task"):
    """What every report on a migration carries."""

    task: Key
    from_region: Name
    to_region: Name
    reason: Text
    started_at: Time


class TaskMigrationStarted(TaskMigration, type="tasks.migration_started"):
    """The new owner fetches the task's state."""


class TaskMigrationCompleted(TaskMigration, type="tasks.migration_completed"):
    """The new owner works on from the last checkpoint."""

    completed_at: Time


class TaskMigrationFailed(TaskMigration, type="tasks.migration_failed"):
    """The new owner could not take over."""

    completed_at: Time
