"""Queues: owns `federated_queues` and `queue_federation_events`."""

from collections.abc import Iterator
from datetime import datetime

from relight.events.envelope import Recorded
from relight.events.queues import QueueDeclared, QueueFailedOver, QueueRecovered, QueueReplicated, QueueRuling
from relight.projections.base import Append, Change, Column, History, Projection, Put, State
from relight.projections.query import Parameter, Query, Row

QUEUES = State(
    name="federated_queues",
    key={"queue_name": Column.TEXT},
    groups={
        "routing": {
            "primary_region": Column.TEXT,
            "replica_regions": Column.TEXTS,
            "is_active": Column.BOOLEAN,
            "region": Column.TEXT,
            "reason": Column.TEXT,
            "routed_at": Column.TIME,
        },
    },
)
EVENTS = History(
    name="queue_federation_events",
    columns_={
        "queue_name": Column.TEXT,
        "event_type": Column.TEXT,
        "from_region": Column.TEXT,
        "to_region": Column.TEXT,
        "task_count": Column.BIGINT,
        "lag_ms": Column.BIGINT,
        "reason": Column.TEXT,
    },
)
projection = Projection(name="queues", version=1, tables=(QUEUES, EVENTS))


@projection.on(QueueDeclared)
def declared(event: Recorded[QueueDeclared]) -> Iterator[Change]:
    yield _routing(event)


@projection.on(QueueFailedOver)
def failed_over(event: Recorded[QueueFailedOver]) -> Iterator[Change]:
    yield _routing(event)
    yield _handover(event.data, "failover")


@projection.on(QueueRecovered)
def recovered(event: Recorded[QueueRecovered]) -> Iterator[Change]:
    yield _routing(event)
    yield _handover(event.data, "recovered")


@projection.on(QueueReplicated)
def replicated(event: Recorded[QueueReplicated]) -> Iterator[Change]:
    data = event.data
    yield Append(
        EVENTS,
        {
            "queue_name": data.queue_name,
            "event_type": "replication",
            "from_region": data.from_region,
            "to_region": data.to_region,
            "task_count": data.task_count,
            "lag_ms": data.lag_ms,
            "reason": None,
        },
    )


def _routing(event: Recorded[QueueDeclared] | Recorded[QueueFailedOver] | Recorded[QueueRecovered]) -> Put:
    data: QueueRuling = event.data
    routing = {
        "primary_region": data.primary_region,
        "replica_regions": data.replica_regions,
        "is_active": data.is_active,
        "region": event.region,
        "reason": data.reason,
        "routed_at": event.decidedat,
    }
    return Put(QUEUES, (data.queue_name,), "routing", routing)


def _handover(data: QueueFailedOver | QueueRecovered, event_type: str) -> Append:
    return Append(
        EVENTS,
        {
            "queue_name": data.queue_name,
            "event_type": event_type,
            "from_region": data.from_region,
            "to_region": data.primary_region,
            "task_count": data.task_count,
            "lag_ms": None,
            "reason": data.reason,
        },
    )


class LedQueue(Row):
    tenant: str
    queue_name: str
    primary_region: str
    replica_regions: tuple[str, ...]
    reason: str
    routed_at: datetime
    event_id: str


class QueueMove(Row):
    tenant: str
    occurred_at: datetime
    queue_name: str
    event_type: str
    from_region: str
    to_region: str
    task_count: int | None
    reason: str
    event_id: str


class QueueHistory(Row):
    tenant: str
    occurred_at: datetime
    event_type: str
    from_region: str
    to_region: str
    task_count: int | None
    lag_ms: int | None
    reason: str | None
    event_id: str


queries = (
    Query(
        name="queues.led_by",
        question="Which active queues does this region lead, and where are their replicas?",
        row=LedQueue,
        sql="""
            SELECT
                q.tenant, q.queue_name, q.primary_region, q.replica_regions, q.reason, q.routed_at,
                q.routing_event_id AS event_id
            FROM federated_queues AS q
            WHERE q.tenant = who.tenant AND q.is_active AND q.primary_region = $region
            ORDER BY q.queue_name
            LIMIT $limit
        """,
        order="queue_name, tenant",
        parameters={"region": Parameter(type=str, help="the region that leads them", required=True)},
    ),
    Query(
        name="queues.moves",
        question="Which queues changed their leading region, and with how many tasks, latest first?",
        row=QueueMove,
        sql="""
            SELECT
                e.tenant, e.occurred_at, e.queue_name, e.event_type, e.from_region, e.to_region, e.task_count,
                e.reason, e.event_id
            FROM queue_federation_events AS e
            WHERE e.tenant = who.tenant AND e.event_type IN ('failover', 'recovered')
            ORDER BY e.event_id DESC
            LIMIT $limit
        """,
        order="event_id DESC",
    ),
    Query(
        name="queues.history",
        question="What was copied and handed over of this queue, latest first?",
        row=QueueHistory,
        sql="""
            SELECT
                e.tenant, e.occurred_at, e.event_type, e.from_region, e.to_region, e.task_count, e.lag_ms,
                e.reason, e.event_id
            FROM queue_federation_events AS e
            WHERE e.tenant = who.tenant AND e.queue_name = $queue
            ORDER BY e.event_id DESC
            LIMIT $limit
        """,
        order="event_id DESC",
        parameters={"queue": Parameter(type=str, help="the queue", required=True)},
    ),
)
