"""Intelligence: owns `intelligence_snapshots` and `intelligence_replication_logs`."""

from collections.abc import Iterator
from datetime import datetime

from relight.events.envelope import Recorded
from relight.events.intelligence import (
    IntelligenceReplication,
    IntelligenceReplicationCompleted,
    IntelligenceReplicationFailed,
    IntelligenceReplicationRequested,
    IntelligenceReplicationStarted,
    IntelligenceSnapshotTaken,
)
from relight.projections.base import Append, Change, Column, History, Projection, Put, State, Union
from relight.projections.query import Parameter, Query, Row

SNAPSHOTS = State(
    name="intelligence_snapshots",
    key={"snapshot": Column.TEXT},
    groups={
        "taking": {
            "snapshot_type": Column.TEXT,
            "source_region": Column.TEXT,
            "agent": Column.TEXT,
            "task": Column.TEXT,
            "epoch": Column.BIGINT,
            "data": Column.OBJECT,
            "checksum": Column.TEXT,
            "taken_at": Column.TIME,
        },
        "session": {"step": Column.BIGINT, "schema_version": Column.BIGINT, "previous": Column.TEXT},
    },
    sets=("replicated_to",),
)
LOGS = History(
    name="intelligence_replication_logs",
    columns_={
        "snapshot": Column.TEXT,
        "target_region": Column.TEXT,
        "replication_status": Column.TEXT,
        "started_at": Column.TIME,
        "completed_at": Column.TIME,
        "verified_checksum": Column.TEXT,
        "reason": Column.TEXT,
    },
)
projection = Projection(name="intelligence", version=1, tables=(SNAPSHOTS, LOGS))


@projection.on(IntelligenceSnapshotTaken)
def snapshot_taken(event: Recorded[IntelligenceSnapshotTaken]) -> Iterator[Change]:
    data = event.data
    taking = {
        "snapshot_type": data.snapshot_type,
        "source_region": data.source_region,
        "agent": data.agent,
        "task": data.task,
        "epoch": data.epoch,
        "data": data.content.model_dump(),
        "checksum": data.content.sha256,
        "taken_at": event.time,
    }
    yield Put(SNAPSHOTS, (data.snapshot,), "taking", taking)
    session = {"step": data.step, "schema_version": data.schema_version, "previous": data.previous}
    if any(value is not None for value in session.values()):
        yield Put(SNAPSHOTS, (data.snapshot,), "session", session)


@projection.on(IntelligenceReplicationRequested)
def replication_requested(event: Recorded[IntelligenceReplicationRequested]) -> Iterator[Change]:
    yield _log(event.data, "pending")


@projection.on(IntelligenceReplicationStarted)
def replication_started(event: Recorded[IntelligenceReplicationStarted]) -> Iterator[Change]:
    yield _log(event.data, "in_progress", started_at=event.data.started_at)


@projection.on(IntelligenceReplicationCompleted)
def replication_completed(event: Recorded[IntelligenceReplicationCompleted]) -> Iterator[Change]:
    data = event.data
    yield _log(
        data,
        "completed",
        started_at=data.started_at,
        completed_at=data.completed_at,
        verified_checksum=data.verified_sha256,
    )
    yield Union(SNAPSHOTS, (data.snapshot,), "replicated_to", data.target_region)


@projection.on(IntelligenceReplicationFailed)
def replication_failed(event: Recorded[IntelligenceReplicationFailed]) -> Iterator[Change]:
    data = event.data
    yield _log(data, "failed", started_at=data.started_at, completed_at=data.completed_at, reason=data.reason)


def _log(
    data: IntelligenceReplication,
    status: str,
    *,
    started_at: datetime | None = None,
    completed_at: datetime | None = None,
    verified_checksum: str | None = None,
    reason: str | None = None,
) -> Append:
    return Append(
        LOGS,
        {
            "snapshot": data.snapshot,
            "target_region": data.target_region,
            "replication_status": status,
            "started_at": started_at,
            "completed_at": completed_at,
            "verified_checksum": verified_checksum,
            "reason": reason,
        },
    )


class Snapshot(Row):
    tenant: str
    snapshot: str
    snapshot_type: str
    source_region: str
    agent: str | None
    task: str | None
    epoch: int | None
    data: dict[str, object]
    checksum: str
    taken_at: datetime
    step: int | None
    schema_version: int | None
    previous: str | None
    replicated_to: tuple[str, ...] | None
    event_id: str


class ReplicationStep(Row):
    tenant: str
    occurred_at: datetime
    target_region: str
    replication_status: str
    started_at: datetime | None
    completed_at: datetime | None
    verified_checksum: str | None
    reason: str | None
    event_id: str


class Proof(Row):
    tenant: str
    occurred_at: datetime
    target_region: str
    started_at: datetime | None
    completed_at: datetime | None
    verified_checksum: str | None
    event_id: str


queries = (
    Query(
        name="intelligence.of_task",
        question="Which snapshots were taken of this task, step by step in order, and where do copies of them stand?",
        row=Snapshot,
        sql="""
            SELECT
                s.tenant, s.snapshot, s.snapshot_type, s.source_region, s.agent, s.task, s.epoch, s.data,
                s.checksum, s.taken_at, s.step, s.schema_version, s.previous, s.replicated_to,
                s.taking_event_id AS event_id
            FROM intelligence_snapshots AS s
            WHERE s.tenant = who.tenant AND s.task = $task
            ORDER BY s.taking_event_id
            LIMIT $limit
        """,
        order="event_id",
        parameters={"task": Parameter(type=str, help="the task", required=True)},
    ),
    Query(
        name="intelligence.proven_in",
        question="In which regions was a copy of this snapshot read back and found to be it, and when?",
        row=Proof,
        sql="""
            SELECT
                l.tenant, l.occurred_at, l.target_region, l.started_at, l.completed_at, l.verified_checksum, l.event_id
            FROM intelligence_replication_logs AS l
            WHERE
                l.tenant = who.tenant AND l.snapshot = $snapshot AND l.replication_status = 'completed'
                AND l.verified_checksum IS NOT NULL
            ORDER BY l.event_id DESC
            LIMIT $limit
        """,
        order="event_id DESC",
        parameters={"snapshot": Parameter(type=str, help="the snapshot", required=True)},
    ),
    Query(
        name="intelligence.latest",
        question="From which snapshot does this task resume (first row), and where does it lie?",
        row=Snapshot,
        sql="""
            SELECT
                s.tenant, s.snapshot, s.snapshot_type, s.source_region, s.agent, s.task, s.epoch, s.data,
                s.checksum, s.taken_at, s.step, s.schema_version, s.previous, s.replicated_to,
                s.taking_event_id AS event_id
            FROM intelligence_snapshots AS s
            WHERE s.tenant = who.tenant AND s.task = $task
            ORDER BY s.epoch DESC NULLS LAST, s.taking_event_id DESC
            LIMIT $limit
        """,
        order="epoch DESC NULLS LAST, event_id DESC",
        parameters={"task": Parameter(type=str, help="the task", required=True)},
    ),
    Query(
        name="intelligence.not_replicated",
        question="Which snapshots would be lost with their region, latest first?",
        row=Snapshot,
        sql="""
            SELECT
                s.tenant, s.snapshot, s.snapshot_type, s.source_region, s.agent, s.task, s.epoch, s.data,
                s.checksum, s.taken_at, s.step, s.schema_version, s.previous, s.replicated_to,
                s.taking_event_id AS event_id
            FROM intelligence_snapshots AS s
            WHERE s.tenant = who.tenant AND s.replicated_to IS NULL
            ORDER BY s.taking_event_id DESC
            LIMIT $limit
        """,
        order="event_id DESC",
    ),
    Query(
        name="intelligence.replication",
        question="How far did the copies of this snapshot get, region by region, latest first?",
        row=ReplicationStep,
        sql="""
            SELECT
                l.tenant, l.occurred_at, l.target_region, l.replication_status, l.started_at, l.completed_at,
                l.verified_checksum, l.reason, l.event_id
            FROM intelligence_replication_logs AS l
            WHERE l.tenant = who.tenant AND l.snapshot = $snapshot
            ORDER BY l.event_id DESC
            LIMIT $limit
        """,
        order="event_id DESC",
        parameters={"snapshot": Parameter(type=str, help="the snapshot", required=True)},
    ),
)
