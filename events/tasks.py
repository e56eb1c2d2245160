"""Tasks: who owns one, under which epoch, and how ownership moved when an agent or a region was lost."""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict

from relight.events.base import Control, Event
from relight.events.values import Content, Count, Key, Name, Ordinal, Text, Time, Whole


class TaskStatus(StrEnum):
    """How far a task is."""

    PENDING = "pending"
    ASSIGNED = "assigned"
    COMPLETED = "completed"
    FAILED = "failed"
    """given up: a dead letter"""


class ReleaseCause(StrEnum):
    """Why an owner holds a task no longer."""

    FAILED = "failed"
    """it said that it failed; tried again after a while"""
    GIVEN_BACK = "given_back"
    """it stopped, or drains: the attempt does not count"""
    OWNER_LOST = "owner_lost"
    REGION_LOST = "region_lost"
    LEASE_OVER = "lease_over"
    NOT_HELD = "not_held"
    """it lives, and says that it does not hold it"""


class TaskState(BaseModel):
    """All there is to know of a task after a ruling, so that its last ruling tells it without any older one.

    `attempt` counts the owners whose attempt counts; `epoch` is the `rev` under which the owner took it. `lost_owner`
    and `lost_region` are those that the next owner takes it over from; `step` and `snapshot` are its session's,
    and `previous` is the snapshot before that one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    queue: Key
    status: TaskStatus
    submitted_at: Time
    payload: Content | None = None
    priority: Whole = 0
    max_attempts: Ordinal = 1
    attempt: Count = 0
    not_before: Time | None = None
    owner: Key | None = None
    owner_region: Name | None = None
    epoch: Count | None = None
    lost_owner: Key | None = None
    lost_region: Name | None = None
    step: Count = 0
    snapshot: Content | None = None
    previous: Content | None = None


def _unchanged(data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 lacked the state, which may be absent."""
    return data


class TaskRuling(Control, policy="reassignment", entity="task"):
    """What every ruling on a task carries; the event's `rev` is the epoch where it assigns the task."""

    task: Key
    state: TaskState | None = None

    @property
    def written_version(self) -> int:
        return self.VERSION if self.state is not None else 1


class TaskSubmitted(TaskRuling, type="tasks.submitted", version=2, upcasts={1: _unchanged}):
    """The task exists and waits for an owner."""

    queue: Key
    payload: Content | None = None


class TaskAssigned(TaskRuling, type="tasks.assigned", version=2, upcasts={1: _unchanged}):
    """The task has its first owner, or a new one after it was given back."""

    owner: Key
    owner_region: Name


class TaskReassigned(TaskRuling, type="tasks.reassigned", version=2, upcasts={1: _unchanged}):
    """The owner was lost: another holds the task under a higher epoch, and the old epoch can no longer commit."""

    owner: Key
    owner_region: Name
    from_owner: Key
    from_region: Name
    reason: Text


class TaskReleased(TaskRuling, type="tasks.released"):
    """The owner holds it no longer, from here on: it waits for another, whom `state` does not know yet."""

    state: TaskState
    from_owner: Key
    from_region: Name
    cause: ReleaseCause
    reason: Text


class TaskCheckpointed(TaskRuling, type="tasks.checkpointed"):
    """The owner's session got as far as `step`; whoever is next goes on from `snapshot`."""

    state: TaskState
    step: Count
    snapshot: Content | None = None


class TaskCompleted(TaskRuling, type="tasks.completed", version=2, upcasts={1: _unchanged}):
    """The current epoch's owner has finished it."""

    result: Content | None = None


class TaskFailed(TaskRuling, type="tasks.failed", version=2, upcasts={1: _unchanged}):
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
