"""Tasks: owns `task_assignments` and `task_migration_history`."""

from collections.abc import Iterator
from datetime import datetime

from relight.events.envelope import Recorded
from relight.events.tasks import (
    TaskAssigned,
    TaskCompleted,
    TaskFailed,
    TaskMigration,
    TaskMigrationCompleted,
    TaskMigrationFailed,
    TaskMigrationStarted,
    TaskReassigned,
    TaskSubmitted,
)
from relight.projections.base import Append, Change, Column, History, Projection, Put, State
from relight.projections.query import Parameter, Query, Row

ASSIGNMENTS = State(
    name="task_assignments",
    key={"task": Column.TEXT},
    groups={
        "submission": {"queue": Column.TEXT, "payload_sha256": Column.TEXT, "submitted_at": Column.TIME},
        "ownership": {"owner": Column.TEXT, "region": Column.TEXT, "epoch": Column.BIGINT},
        "progress": {"status": Column.TEXT, "status_reason": Column.TEXT, "status_at": Column.TIME},
    },
)
MIGRATIONS = History(
    name="task_migration_history",
    columns_={
        "task": Column.TEXT,
        "from_region": Column.TEXT,
        "to_region": Column.TEXT,
        "from_owner": Column.TEXT,
        "to_owner": Column.TEXT,
        "epoch": Column.BIGINT,
        "reason": Column.TEXT,
        "migration_status": Column.TEXT,
        "started_at": Column.TIME,
        "completed_at": Column.TIME,
    },
)
projection = Projection(name="tasks", version=1, tables=(ASSIGNMENTS, MIGRATIONS))


@projection.on(TaskSubmitted)
def submitted(event: Recorded[TaskSubmitted]) -> Iterator[Change]:
    payload = event.data.payload
    submission = {
        "queue": event.data.queue,
        "payload_sha256": payload.sha256 if payload else None,
        "submitted_at": event.decidedat,
    }
    yield Put(ASSIGNMENTS, (event.data.task,), "submission", submission)
    yield _progress(event, "pending")


@projection.on(TaskAssigned)
def assigned(event: Recorded[TaskAssigned]) -> Iterator[Change]:
    yield _ownership(event)
    yield _progress(event, "assigned")


@projection.on(TaskReassigned)
def reassigned(event: Recorded[TaskReassigned]) -> Iterator[Change]:
    data = event.data
    yield _ownership(event)
    yield _progress(event, "assigned", data.reason)
    yield Append(
        MIGRATIONS,
        {
            "task": data.task,
            "from_region": data.from_region,
            "to_region": data.owner_region,
            "from_owner": data.from_owner,
            "to_owner": data.owner,
            "epoch": event.rev,
            "reason": data.reason,
            "migration_status": "initiated",
            "started_at": event.decidedat,
            "completed_at": None,
        },
    )


@projection.on(TaskCompleted)
def completed(event: Recorded[TaskCompleted]) -> Iterator[Change]:
    yield _progress(event, "completed")


@projection.on(TaskFailed)
def failed(event: Recorded[TaskFailed]) -> Iterator[Change]:
    yield _progress(event, "failed", event.data.reason)


@projection.on(TaskMigrationStarted)
def migration_started(event: Recorded[TaskMigrationStarted]) -> Iterator[Change]:
    yield _migration(event.data, "in_progress", None)


@projection.on(TaskMigrationCompleted)
def migration_completed(event: Recorded[TaskMigrationCompleted]) -> Iterator[Change]:
    yield _migration(event.data, "completed", event.data.completed_at)


@projection.on(TaskMigrationFailed)
def migration_failed(event: Recorded[TaskMigrationFailed]) -> Iterator[Change]:
    yield _migration(event.data, "failed", event.data.completed_at)


def _ownership(event: Recorded[TaskAssigned] | Recorded[TaskReassigned]) -> Put:
    data = event.data
    ownership = {"owner": data.owner, "region": data.owner_region, "epoch": event.rev}
    return Put(ASSIGNMENTS, (data.task,), "ownership", ownership)


def _progress(
    event: Recorded[TaskSubmitted]
    | Recorded[TaskAssigned]
    | Recorded[TaskReassigned]
    | Recorded[TaskCompleted]
    | Recorded[TaskFailed],
    status: str,
    reason: str | None = None,
) -> Put:
    progress = {"status": status, "status_reason": reason, "status_at": event.decidedat}
    return Put(ASSIGNMENTS, (event.data.task,), "progress", progress)


def _migration(data: TaskMigration, status: str, completed_at: datetime | None) -> Append:
    return Append(
        MIGRATIONS,
        {
            "task": data.task,
            "from_region": data.from_region,
            "to_region": data.to_region,
            "from_owner": None,
            "to_owner": None,
            "epoch": None,
            "reason": data.reason,
            "migration_status": status,
            "started_at": data.started_at,
            "completed_at": completed_at,
        },
    )


class Assignment(Row):
    tenant: str
    task: str
    queue: str | None
    owner: str | None
    region: str | None
    epoch: int | None
    status: str
    status_reason: str | None
    status_at: datetime
    event_id: str


class Holder(Row):
    tenant: str
    occurred_at: datetime
    migration_status: str
    from_region: str
    to_region: str
    from_owner: str | None
    to_owner: str | None
    epoch: int | None
    reason: str
    event_id: str


class Held(Row):
    tenant: str
    task: str
    queue: str | None
    owner: str
    region: str
    epoch: int
    status: str | None
    event_id: str


queries = (
    Query(
        name="tasks.by_status",
        question="Which tasks are in this state (pending, assigned, completed, failed), latest first?",
        row=Assignment,
        sql="""
            SELECT
                t.tenant, t.task, t.queue, t.owner, t.region, t.epoch, t.status, t.status_reason, t.status_at,
                t.progress_event_id AS event_id
            FROM task_assignments AS t
            WHERE t.tenant = who.tenant AND t.status = $status
            ORDER BY t.status_at DESC, t.task
            LIMIT $limit
        """,
        order="status_at DESC, tenant, task",
        parameters={"status": Parameter(type=str, help="pending, assigned, completed or failed", default="assigned")},
    ),
    Query(
        name="tasks.held_in",
        question="Which tasks does this region hold, and who holds them?",
        row=Held,
        sql="""
            SELECT
                t.tenant, t.task, t.queue, t.owner, t.region, t.epoch, t.status,
                t.ownership_event_id AS event_id
            FROM task_assignments AS t
            WHERE t.tenant = who.tenant AND t.region = $region
            ORDER BY t.ownership_event_id DESC
            LIMIT $limit
        """,
        order="event_id DESC",
        parameters={"region": Parameter(type=str, help="the region that holds them", required=True)},
    ),
    Query(
        name="tasks.migrations",
        question="How did this task move from one owner to the next, and why?",
        row=Holder,
        sql="""
            SELECT
                h.tenant, h.occurred_at, h.migration_status, h.from_region, h.to_region, h.from_owner, h.to_owner,
                h.epoch, h.reason, h.event_id
            FROM task_migration_history AS h
            WHERE h.tenant = who.tenant AND h.task = $task
            ORDER BY h.event_id DESC
            LIMIT $limit
        """,
        order="event_id DESC",
        parameters={"task": Parameter(type=str, help="the task", required=True)},
    ),
)
