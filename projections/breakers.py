"""Circuit breakers: owns `circuit_breaker_states` and `circuit_breaker_events`."""

from collections.abc import Iterator
from datetime import datetime

from relight.events.breakers import (
    BreakerClosed,
    BreakerFailed,
    BreakerHalfOpened,
    BreakerOpened,
    BreakerReset,
    BreakerSucceeded,
    BreakerTripped,
)
from relight.events.envelope import Recorded
from relight.projections.base import Append, Change, Column, History, Projection, Put, State
from relight.projections.query import EVER, Parameter, Query, Row, first_id

STATES = State(
    name="circuit_breaker_states",
    key={"service_name": Column.TEXT},
    groups={
        "ruling": {
            "state": Column.TEXT,
            "region": Column.TEXT,
            "failure_count": Column.BIGINT,
            "reason": Column.TEXT,
            "opened_at": Column.TIME,
            "next_retry_at": Column.TIME,
        },
        "last_failure": {"last_failure_at": Column.TIME, "last_error_class": Column.TEXT},
    },
)
EVENTS = History(
    name="circuit_breaker_events",
    columns_={"service_name": Column.TEXT, "event_type": Column.TEXT, "details": Column.OBJECT},
)
projection = Projection(name="breakers", version=1, tables=(STATES, EVENTS))


@projection.on(BreakerSucceeded)
def succeeded(event: Recorded[BreakerSucceeded]) -> Iterator[Change]:
    yield _history(event.data.service_name, "success", {"latency_ms": event.data.latency_ms})


@projection.on(BreakerFailed)
def failed(event: Recorded[BreakerFailed]) -> Iterator[Change]:
    data = event.data
    yield _history(data.service_name, "failure", {**data.details, "error_class": data.error_class})
    last_failure = {"last_failure_at": event.time, "last_error_class": data.error_class}
    yield Put(STATES, (data.service_name,), "last_failure", last_failure)


@projection.on(BreakerTripped)
def tripped(event: Recorded[BreakerTripped]) -> Iterator[Change]:
    data = event.data
    who: dict[str, object] = {"process": data.process, "fault_domain": data.fault_domain, "reason": data.reason}
    counted = {"failure_count": data.failure_count, "retry_at": data.retry_at.isoformat()}
    yield _history(data.service_name, "tripped", {**who, **counted})


@projection.on(BreakerReset)
def reset(event: Recorded[BreakerReset]) -> Iterator[Change]:
    data = event.data
    who: dict[str, object] = {"process": data.process, "fault_domain": data.fault_domain, "reason": data.reason}
    yield _history(data.service_name, "reset", who)


@projection.on(BreakerOpened)
def opened(event: Recorded[BreakerOpened]) -> Iterator[Change]:
    data = event.data
    retry_at = data.next_retry_at.isoformat()
    details: dict[str, object] = {"reason": data.reason, "failure_count": data.failure_count}
    voters = {"processes": list(data.processes), "fault_domains": list(data.fault_domains)}
    yield _history(data.service_name, "opened", {**details, "next_retry_at": retry_at, **voters})
    yield Put(
        STATES,
        (data.service_name,),
        "ruling",
        {
            "state": "open",
            "region": event.region,
            "failure_count": data.failure_count,
            "reason": data.reason,
            "opened_at": event.decidedat,
            "next_retry_at": data.next_retry_at,
        },
    )


@projection.on(BreakerHalfOpened)
def half_opened(event: Recorded[BreakerHalfOpened]) -> Iterator[Change]:
    data = event.data
    lease_until = data.lease_until and data.lease_until.isoformat()
    lease = {"holder": data.holder, "lease_until": lease_until, "probes": data.probes}
    yield _history(data.service_name, "half_opened", {"reason": data.reason, **lease})
    yield Put(
        STATES,
        (data.service_name,),
        "ruling",
        {
            "state": "half_open",
            "region": event.region,
            "failure_count": data.failure_count,
            "reason": data.reason,
            "opened_at": data.opened_at,
            "next_retry_at": None,
        },
    )


@projection.on(BreakerClosed)
def closed(event: Recorded[BreakerClosed]) -> Iterator[Change]:
    data = event.data
    yield _history(data.service_name, "closed", {"reason": data.reason})
    yield Put(
        STATES,
        (data.service_name,),
        "ruling",
        {
            "state": "closed",
            "region": event.region,
            "failure_count": 0,
            "reason": data.reason,
            "opened_at": None,
            "next_retry_at": None,
        },
    )


def _history(service_name: str, event_type: str, details: dict[str, object]) -> Append:
    return Append(EVENTS, {"service_name": service_name, "event_type": event_type, "details": details})


class OpenBreaker(Row):
    tenant: str
    service_name: str
    state: str
    region: str
    failure_count: int
    reason: str
    opened_at: datetime
    next_retry_at: datetime | None
    last_failure_at: datetime | None
    event_id: str


class BreakerHistory(Row):
    tenant: str
    occurred_at: datetime
    event_type: str
    region: str
    details: dict[str, object]
    event_id: str


class Vote(Row):
    tenant: str
    service_name: str
    process: str
    fault_domain: str
    voted_at: datetime
    reason: str
    failure_count: int
    retry_at: datetime
    withdrawn_at: datetime | None
    withdrawn_because: str | None
    event_id: str


queries = (
    Query(
        name="breakers.open_now",
        question="Which breakers let no or few calls through, why, and until when?",
        row=OpenBreaker,
        sql="""
            SELECT
                s.tenant, s.service_name, s.state, s.region, s.failure_count, s.reason, s.opened_at,
                s.next_retry_at, s.last_failure_at, s.ruling_event_id AS event_id
            FROM circuit_breaker_states AS s
            WHERE s.tenant = who.tenant AND s.state IN ('open', 'half_open')
            ORDER BY s.opened_at DESC, s.service_name
            LIMIT $limit
        """,
        order="opened_at DESC, tenant, service_name",
    ),
    Query(
        name="breakers.history",
        question="What happened at this breaker, latest first?",
        row=BreakerHistory,
        sql="""
            SELECT e.tenant, e.occurred_at, e.event_type, e.region, e.details, e.event_id
            FROM circuit_breaker_events AS e
            WHERE e.tenant = who.tenant AND e.service_name = $service
            ORDER BY e.event_id DESC
            LIMIT $limit
        """,
        order="event_id DESC",
        parameters={"service": Parameter(type=str, help="the dependency's name", required=True)},
    ),
    Query(
        name="breakers.votes",
        question="Which processes' own breakers voted to open this one, and which took their vote back, latest first?",
        row=Vote,
        sql=f"""
            SELECT
                v.tenant, v.service_name, v.details ->> 'process' AS process,
                v.details ->> 'fault_domain' AS fault_domain, v.occurred_at AS voted_at,
                v.details ->> 'reason' AS reason,
                (v.details ->> 'failure_count')::bigint AS failure_count,
                (v.details ->> 'retry_at')::timestamptz AS retry_at,
                CASE v.next_type WHEN 'reset' THEN v.next_at END AS withdrawn_at,
                CASE v.next_type WHEN 'reset' THEN v.next_reason END AS withdrawn_because, v.event_id
            FROM (
                SELECT
                    e.tenant, e.service_name, e.event_type, e.occurred_at, e.details, e.event_id,
                    lead(e.event_type) OVER its AS next_type, lead(e.occurred_at) OVER its AS next_at,
                    lead(e.details ->> 'reason') OVER its AS next_reason
                FROM circuit_breaker_events AS e
                WHERE e.tenant = who.tenant AND e.service_name = $service AND e.event_type IN ('tripped', 'reset')
                    AND e.event_id >= {first_id("$since")}
                WINDOW its AS (PARTITION BY e.details ->> 'process' ORDER BY e.event_id)
            ) AS v
            WHERE v.event_type = 'tripped'
            ORDER BY v.event_id DESC
            LIMIT $limit
        """,
        order="event_id DESC",
        parameters={
            "service": Parameter(type=str, help="the dependency's name", required=True),
            "since": Parameter(type=datetime, help="from when on they voted", default=EVER),
        },
    ),
)
