"""Fault domains: owns `fault_domains` and `fault_isolation_events`."""

from collections.abc import Iterator
from datetime import datetime

from relight.events.envelope import Recorded
from relight.events.faults import (
    FaultDetected,
    FaultIsolated,
    FaultRecovered,
    FaultRecovering,
    FaultRuling,
    FaultSuspected,
    FaultTrusted,
    FaultVote,
)
from relight.projections.base import Append, Change, Column, History, Projection, Put, State
from relight.projections.query import Parameter, Query, Row

DOMAINS = State(
    name="fault_domains",
    key={"domain_type": Column.TEXT, "domain_identifier": Column.TEXT},
    groups={
        "ruling": {
            "status": Column.TEXT,
            "region": Column.TEXT,
            "cause": Column.TEXT,
            "scope": Column.TEXT,
            "cascading_risk": Column.FLOAT,
            "confidence": Column.FLOAT,
            "isolation_reason": Column.TEXT,
            "status_at": Column.TIME,
            "detected_at": Column.TIME,
            "isolated_at": Column.TIME,
            "recovered_at": Column.TIME,
        },
    },
)
EVENTS = History(
    name="fault_isolation_events",
    columns_={
        "domain_type": Column.TEXT,
        "domain_identifier": Column.TEXT,
        "event_type": Column.TEXT,
        "cause": Column.TEXT,
        "scope": Column.TEXT,
        "cascading_risk": Column.FLOAT,
        "confidence": Column.FLOAT,
        "observer": Column.TEXT,
        "observer_region": Column.TEXT,
        "phi": Column.FLOAT,
        "silent_ms": Column.BIGINT,
        "voters": Column.TEXTS,
        "voter_regions": Column.TEXTS,
    },
)
projection = Projection(name="faults", version=1, tables=(DOMAINS, EVENTS))


@projection.on(FaultSuspected)
def suspected(event: Recorded[FaultSuspected]) -> Iterator[Change]:
    yield _vote(event.data, "suspected", f"no heartbeat for {event.data.silent_ms} ms")


@projection.on(FaultTrusted)
def trusted(event: Recorded[FaultTrusted]) -> Iterator[Change]:
    yield _vote(event.data, "trusted", "its heartbeats come")


@projection.on(FaultDetected)
def detected(event: Recorded[FaultDetected]) -> Iterator[Change]:
    yield _history(event.data, "detected")
    yield _ruling(event, "degraded", detected_at=event.decidedat)


@projection.on(FaultIsolated)
def isolated(event: Recorded[FaultIsolated]) -> Iterator[Change]:
    data = event.data
    yield _history(data, "isolated")
    yield _ruling(
        event,
        "isolated",
        detected_at=data.detected_at,
        isolated_at=event.decidedat,
        isolation_reason=data.cause,
    )


@projection.on(FaultRecovering)
def recovering(event: Recorded[FaultRecovering]) -> Iterator[Change]:
    data = event.data
    yield _history(data, "recovering")
    yield _ruling(
        event,
        "recovering",
        detected_at=data.detected_at,
        isolated_at=data.isolated_at,
        isolation_reason=data.isolation_reason,
    )


@projection.on(FaultRecovered)
def recovered(event: Recorded[FaultRecovered]) -> Iterator[Change]:
    data = event.data
    yield _history(data, "recovered")
    yield _ruling(
        event,
        "healthy",
        detected_at=data.detected_at,
        isolated_at=data.isolated_at,
        isolation_reason=data.isolation_reason,
        recovered_at=event.decidedat,
    )


def _ruling(
    event: Recorded[FaultDetected] | Recorded[FaultIsolated] | Recorded[FaultRecovering] | Recorded[FaultRecovered],
    status: str,
    *,
    detected_at: datetime | None,
    isolated_at: datetime | None = None,
    isolation_reason: str | None = None,
    recovered_at: datetime | None = None,
) -> Put:
    data: FaultRuling = event.data
    ruling = {
        "status": status,
        "region": event.region,
        "cause": data.cause,
        "scope": data.scope,
        "cascading_risk": data.cascading_risk,
        "confidence": data.confidence,
        "isolation_reason": isolation_reason,
        "status_at": event.decidedat,
        "detected_at": detected_at,
        "isolated_at": isolated_at,
        "recovered_at": recovered_at,
    }
    return Put(DOMAINS, (data.domain_type.value, data.domain_identifier), "ruling", ruling)


def _history(data: FaultRuling, event_type: str) -> Append:
    return Append(
        EVENTS,
        {
            "domain_type": data.domain_type.value,
            "domain_identifier": data.domain_identifier,
            "event_type": event_type,
            "cause": data.cause,
            "scope": data.scope,
            "cascading_risk": data.cascading_risk,
            "confidence": data.confidence,
            "observer": None,
            "observer_region": None,
            "phi": data.phi,
            "silent_ms": None,
            "voters": data.voters,
            "voter_regions": data.voter_regions,
        },
    )


def _vote(data: FaultVote, event_type: str, cause: str) -> Append:
    return Append(
        EVENTS,
        {
            "domain_type": data.domain_type.value,
            "domain_identifier": data.domain_identifier,
            "event_type": event_type,
            "cause": cause,
            "scope": f"as {data.observer_region} hears it",
            "cascading_risk": None,
            "confidence": None,
            "observer": data.observer,
            "observer_region": data.observer_region,
            "phi": data.phi,
            "silent_ms": data.silent_ms,
            "voters": None,
            "voter_regions": None,
        },
    )


class UnhealthyDomain(Row):
    tenant: str
    domain_type: str
    domain_identifier: str
    status: str
    region: str
    cause: str
    scope: str
    cascading_risk: float | None
    confidence: float | None
    isolation_reason: str | None
    status_at: datetime
    detected_at: datetime | None
    isolated_at: datetime | None
    event_id: str


class Domain(Row):
    tenant: str
    domain_type: str
    domain_identifier: str
    status: str
    cause: str
    status_at: datetime
    isolated_at: datetime | None
    recovered_at: datetime | None
    event_id: str


class DomainHistory(Row):
    tenant: str
    occurred_at: datetime
    event_type: str
    region: str
    cause: str
    scope: str
    cascading_risk: float | None
    confidence: float | None
    event_id: str


class FaultVoteRow(Row):
    tenant: str
    occurred_at: datetime
    event_type: str
    observer: str
    observer_region: str
    phi: float
    silent_ms: int
    event_id: str


queries = (
    Query(
        name="faults.not_healthy",
        question="Which domains are degraded, isolated or recovering, why, and since when?",
        row=UnhealthyDomain,
        sql="""
            SELECT
                d.tenant, d.domain_type, d.domain_identifier, d.status, d.region, d.cause, d.scope,
                d.cascading_risk, d.confidence, d.isolation_reason, d.status_at, d.detected_at, d.isolated_at,
                d.ruling_event_id AS event_id
            FROM fault_domains AS d
            WHERE d.tenant = who.tenant AND d.status IN ('degraded', 'isolated', 'recovering')
            ORDER BY d.status_at DESC
            LIMIT $limit
        """,
        order="status_at DESC, tenant, domain_type, domain_identifier",
    ),
    Query(
        name="faults.matrix",
        question="How are all domains of this type (tenant, region, engine, provider)?",
        row=Domain,
        sql="""
            SELECT
                d.tenant, d.domain_type, d.domain_identifier, d.status, d.cause, d.status_at, d.isolated_at,
                d.recovered_at, d.ruling_event_id AS event_id
            FROM fault_domains AS d
            WHERE d.tenant = who.tenant AND d.domain_type = $type
            ORDER BY d.domain_identifier
            LIMIT $limit
        """,
        order="domain_identifier, tenant",
        parameters={"type": Parameter(type=str, help="tenant, region, engine or provider", default="region")},
    ),
    Query(
        name="faults.history",
        question="What was seen of this domain and ruled on it, latest first?",
        row=DomainHistory,
        sql="""
            SELECT
                e.tenant, e.occurred_at, e.event_type, e.region, e.cause, e.scope, e.cascading_risk, e.confidence,
                e.event_id
            FROM fault_isolation_events AS e
            WHERE e.tenant = who.tenant AND e.domain_type = $type AND e.domain_identifier = $identifier
            ORDER BY e.event_id DESC
            LIMIT $limit
        """,
        order="event_id DESC",
        parameters={
            "type": Parameter(type=str, help="tenant, region, engine or provider", default="region"),
            "identifier": Parameter(
                type=str, help="the tenant's, region's, engine's or provider's name", required=True
            ),
        },
    ),
    Query(
        name="faults.votes",
        question="Who missed this domain's heartbeats or heard them again, and how sure was that; latest first?",
        row=FaultVoteRow,
        sql="""
            SELECT
                e.tenant, e.occurred_at, e.event_type, e.observer, e.observer_region, e.phi, e.silent_ms, e.event_id
            FROM fault_isolation_events AS e
            WHERE
                e.tenant = who.tenant AND e.domain_type = $type AND e.domain_identifier = $identifier
                AND e.event_type IN ('suspected', 'trusted')
            ORDER BY e.event_id DESC
            LIMIT $limit
        """,
        order="event_id DESC",
        parameters={
            "type": Parameter(type=str, help="region, or engine for an agent", default="region"),
            "identifier": Parameter(type=str, help="the region's or the agent's name", required=True),
        },
    ),
)
