"""Tasks: owns `task_assignments` and `task_migration_history`."""

from collections.abc import Iterator
from datetime import datetime

from relight.events.envelope import Recorded
from relight.events.tasks import (
    TaskAssigned,
    TaskCheckpointed,
    TaskCompleted,
    TaskFailed,
    TaskMigration,
    TaskMigrationCompleted,
    TaskMigrationFailed,
    TaskMigrationStarted,
    TaskReassigned,
    TaskReleased,
    TaskRuling,
    TaskState,
    TaskSubmitted,
)
from relight.projections.base import Append, Change, Column, History, Projection, Put, State, Value
from relight.projections.query import Parameter, Query, Row

NOWHERE = "-"
"""Where a released task goes: nobody knows yet."""
ASSIGNMENTS = State(
    name="task_assignments",
    key={"task": Column.TEXT},
    groups={
        "submission": {"queue": Column.TEXT, "payload_sha256": Column.TEXT, "submitted_at": Column.TIME},
        "ownership": {"owner": Column.TEXT, "region": Column.TEXT, "epoch": Column.BIGINT},
        "progress": {"status": Column.TEXT, "status_reason": Column.TEXT, "status_at": Column.TIME},
        "schedule": {
            "priority": Column.BIGINT,
            "attempt": Column.BIGINT,
            "max_attempts": Column.BIGINT,
            "not_before": Column.TIME,
        },
        "session": {"step": Column.BIGINT, "snapshot_sha256": Column.TEXT},
        "outcome": {"result_sha256": Column.TEXT},
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
    yield from _progress(event, "pending")


@projection.on(TaskAssigned)
def assigned(event: Recorded[TaskAssigned]) -> Iterator[Change]:
    yield _ownership(event.data, event.data.owner, event.data.owner_region, event.rev)
    yield from _progress(event, "assigned")


@projection.on(TaskReassigned)
def reassigned(event: Recorded[TaskReassigned]) -> Iterator[Change]:
    data = event.data
    yield _ownership(data, data.owner, data.owner_region, event.rev)
    yield from _progress(event, "assigned", data.reason)
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


@projection.on(TaskReleased)
def released(event: Recorded[TaskReleased]) -> Iterator[Change]:
    data = event.data
    yield _ownership(data, None, None, None)
    yield from _progress(event, "pending", data.reason)
    yield Append(
        MIGRATIONS,
        {
            "task": data.task,
            "from_region": data.from_region,
            "to_region": NOWHERE,
            "from_owner": data.from_owner,
            "to_owner": None,
            "epoch": event.rev,
            "reason": data.reason,
            "migration_status": "released",
            "started_at": event.decidedat,
            "completed_at": None,
        },
    )


@projection.on(TaskCheckpointed)
def checkpointed(event: Recorded[TaskCheckpointed]) -> Iterator[Change]:
    snapshot = event.data.snapshot
    session = {"step": event.data.step, "snapshot_sha256": snapshot.sha256 if snapshot else None}
    yield Put(ASSIGNMENTS, (event.data.task,), "session", session)


@projection.on(TaskCompleted)
def completed(event: Recorded[TaskCompleted]) -> Iterator[Change]:
    result = event.data.result
    yield from _progress(event, "completed")
    yield Put(ASSIGNMENTS, (event.data.task,), "outcome", {"result_sha256": result.sha256 if result else None})


@projection.on(TaskFailed)
def failed(event: Recorded[TaskFailed]) -> Iterator[Change]:
    yield from _progress(event, "failed", event.data.reason)


@projection.on(TaskMigrationStarted)
def migration_started(event: Recorded[TaskMigrationStarted]) -> Iterator[Change]:
    yield _migration(event.data, "in_progress", None)


@projection.on(TaskMigrationCompleted)
def migration_completed(event: Recorded[TaskMigrationCompleted]) -> Iterator[Change]:
    yield _migration(event.data, "completed", event.data.completed_at)


@projection.on(TaskMigrationFailed)
def migration_failed(event: Recorded[TaskMigrationFailed]) -> Iterator[Change]:
    yield _migration(event.data, "failed", event.data.completed_at)


def _ownership(data: TaskRuling, owner: str | None, region: str | None, epoch: int | None) -> Put:
    return Put(ASSIGNMENTS, (data.task,), "ownership", {"owner": owner, "region": region, "epoch": epoch})


def _progress(event: Recorded[TaskRuling], status: str, reason: str | None = None) -> Iterator[Put]:
    progress = {"status": status, "status_reason": reason, "status_at": event.decidedat}
    yield Put(ASSIGNMENTS, (event.data.task,), "progress", progress)
    if (state := event.data.state) is not None:
        yield Put(ASSIGNMENTS, (event.data.task,), "schedule", _schedule(state))


def _schedule(state: TaskState) -> dict[str, Value]:
    return {
        "priority": state.priority,
        "attempt": state.attempt,
        "max_attempts": state.max_attempts,
        "not_before": state.not_before,
    }


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


class Pending(Row):
    tenant: str
    task: str
    queue: str | None
    priority: int | None
    attempt: int | None
    not_before: datetime | None
    status_reason: str | None
    status_at: datetime
    event_id: str


class Dead(Row):
    tenant: str
    task: str
    queue: str | None
    attempt: int | None
    max_attempts: int | None
    owner: str | None
    region: str | None
    status_reason: str | None
    status_at: datetime
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
            WHERE t.tenant = who.tenant AND t.region = $region AND t.owner IS NOT NULL
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
    Query(
        name="tasks.pending",
        question="Which tasks of this queue wait for an owner, those that wait longest first?",
        row=Pending,
        sql="""
            SELECT
                t.tenant, t.task, t.queue, t.priority, t.attempt, t.not_before, t.status_reason, t.status_at,
                t.progress_event_id AS event_id
            FROM task_assignments AS t
            WHERE t.tenant = who.tenant AND t.queue = $queue AND t.status = 'pending'
            ORDER BY t.status_at, t.task
            LIMIT $limit
        """,
        order="status_at, tenant, task",
        parameters={"queue": Parameter(type=str, help="the queue", required=True)},
    ),
    Query(
        name="tasks.dead",
        question="Which tasks were given up, latest first, and why?",
        row=Dead,
        sql="""
            SELECT
                t.tenant, t.task, t.queue, t.attempt, t.max_attempts, t.owner, t.region, t.status_reason, t.status_at,
                t.progress_event_id AS event_id
            FROM task_assignments AS t
            WHERE t.tenant = who.tenant AND t.status = 'failed'
            ORDER BY t.status_at DESC, t.task
            LIMIT $limit
        """,
        order="status_at DESC, tenant, task",
    ),
    Query(
        name="tasks.history",
        question="What happened to this task's ownership, in order: given back, lost, taken over, resumed?",
        row=Holder,
        sql="""
            SELECT
                h.tenant, h.occurred_at, h.migration_status, h.from_region, h.to_region, h.from_owner, h.to_owner,
                h.epoch, h.reason, h.event_id
            FROM task_migration_history AS h
            WHERE h.tenant = who.tenant AND h.task = $task
            ORDER BY h.event_id
            LIMIT $limit
        """,
        order="event_id",
        parameters={"task": Parameter(type=str, help="the task", required=True)},
    ),
)
