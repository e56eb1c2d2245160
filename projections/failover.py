"""Failover: owns `failover_routing_policies` and `failover_events`."""

from collections.abc import Iterator
from datetime import datetime
from typing import assert_never

from relight.events.envelope import Recorded
from relight.events.failover import (
    FailoverAborted,
    FailoverCompleted,
    FailoverPolicyDeclared,
    FailoverReceiptClosed,
    FailoverReturned,
    FailoverRuling,
    FailoverStarted,
    FleetDeclared,
    FleetRuling,
    Manner,
    OverrideEnded,
    RulesOverridden,
)
from relight.events.values import Content
from relight.projections.base import Append, Change, Column, History, Projection, Put, State
from relight.projections.query import Parameter, Query, Row

POLICIES = State(
    name="failover_routing_policies",
    key={"policy_name": Column.TEXT},
    groups={
        "declaration": {
            "source_region": Column.TEXT,
            "fallback_regions": Column.TEXTS,
            "conditions": Column.OBJECT,
            "is_active": Column.BOOLEAN,
            "region": Column.TEXT,
            "declared_by": Column.TEXT,
            "declared_at": Column.TIME,
        },
    },
)
EVENTS = History(
    name="failover_events",
    columns_={
        "fleet": Column.TEXT,
        "policy": Column.TEXT,
        "source_region": Column.TEXT,
        "target_region": Column.TEXT,
        "active_regions": Column.TEXTS,
        "reason": Column.TEXT,
        "phase": Column.TEXT,
        "is_degraded_mode": Column.BOOLEAN,
        "compliance_preserved": Column.BOOLEAN,
        "confidence": Column.FLOAT,
        "ordered_by": Column.TEXT,
        "expires_at": Column.TIME,
        "receipt": Column.OBJECT,
        "failover": Column.TEXT,
        "routing": Column.OBJECT,
        "closing": Column.OBJECT,
    },
)
NO_REGION = "-"
"""Of a ruling that moves no traffic."""
projection = Projection(name="failover", version=1, tables=(POLICIES, EVENTS))


@projection.on(FailoverPolicyDeclared)
def policy_declared(event: Recorded[FailoverPolicyDeclared]) -> Iterator[Change]:
    data = event.data
    declaration = {
        "source_region": data.source_region,
        "fallback_regions": data.fallback_regions,
        "conditions": data.conditions,
        "is_active": data.is_active,
        "region": event.region,
        "declared_by": data.declared_by,
        "declared_at": event.time,
    }
    yield Put(POLICIES, (data.policy_name,), "declaration", declaration)


@projection.on(FleetDeclared)
def fleet_declared(event: Recorded[FleetDeclared]) -> Iterator[Change]:
    yield _fleet_history(event.data, "declared")


@projection.on(RulesOverridden)
def overridden(event: Recorded[RulesOverridden]) -> Iterator[Change]:
    yield _fleet_history(event.data, "overridden", event.data.override)


@projection.on(OverrideEnded)
def override_ended(event: Recorded[OverrideEnded]) -> Iterator[Change]:
    yield _fleet_history(event.data, "override_ended", event.data.override)


@projection.on(FailoverStarted)
def started(event: Recorded[FailoverStarted]) -> Iterator[Change]:
    match event.data.manner:
        case Manner.GRACEFUL:
            yield _history(event.data, "draining")
        case Manner.FORCED:
            yield _history(event.data, "switching")
        case never:
            assert_never(never)


@projection.on(FailoverCompleted)
def completed(event: Recorded[FailoverCompleted]) -> Iterator[Change]:
    yield _history(event.data, "completed", event.data.receipt)


@projection.on(FailoverAborted)
def aborted(event: Recorded[FailoverAborted]) -> Iterator[Change]:
    yield _history(event.data, "aborted")


@projection.on(FailoverReturned)
def returned(event: Recorded[FailoverReturned]) -> Iterator[Change]:
    yield _history(event.data, "returned", event.data.receipt)


@projection.on(FailoverReceiptClosed)
def receipt_closed(event: Recorded[FailoverReceiptClosed]) -> Iterator[Change]:
    data = event.data
    yield Append(
        EVENTS,
        {
            "fleet": data.fleet,
            "policy": None,
            "source_region": data.source_region,
            "target_region": data.target_region,
            "active_regions": (),
            "reason": data.reason,
            "phase": "receipt_closed",
            "is_degraded_mode": False,
            "compliance_preserved": True,
            "confidence": None,
            "ordered_by": data.ordered_by,
            "expires_at": None,
            "receipt": data.receipt.model_dump(),
            "failover": data.failover,
            "routing": None,
            "closing": {
                "how": data.how.value,
                "recovered_events": data.recovered_events,
                "lost_events": data.lost_events,
                "in_doubt_events": data.in_doubt_events,
                "is_open_ended": data.is_open_ended,
            },
        },
    )


def _history(data: FailoverRuling, phase: str, receipt: Content | None = None) -> Append:
    return Append(
        EVENTS,
        {
            "fleet": data.fleet,
            "policy": data.policy_name,
            "source_region": data.source_region,
            "target_region": data.target_region,
            "active_regions": data.active_regions,
            "reason": data.reason,
            "phase": phase,
            "is_degraded_mode": data.is_degraded_mode,
            "compliance_preserved": data.compliance_preserved,
            "confidence": data.confidence,
            "ordered_by": data.ordered_by,
            "expires_at": data.expires_at,
            "receipt": None if receipt is None else receipt.model_dump(),
            "failover": data.failover,
            "routing": None if data.routing is None else data.routing.model_dump(mode="json", exclude_none=True),
            "closing": None,
        },
    )


def _fleet_history(data: FleetRuling, phase: str, override: str | None = None) -> Append:
    return Append(
        EVENTS,
        {
            "fleet": data.fleet,
            "policy": None,
            "source_region": NO_REGION,
            "target_region": NO_REGION,
            "active_regions": data.active_regions,
            "reason": data.reason,
            "phase": phase,
            "is_degraded_mode": data.is_degraded_mode,
            "compliance_preserved": data.compliance_preserved,
            "confidence": None,
            "ordered_by": data.ordered_by,
            "expires_at": data.expires_at,
            "receipt": None,
            "failover": override,
            "routing": data.routing.model_dump(mode="json", exclude_none=True),
            "closing": None,
        },
    )


class RoutingPolicy(Row):
    tenant: str
    policy_name: str
    source_region: str
    fallback_regions: tuple[str, ...]
    conditions: dict[str, object]
    declared_by: str | None
    declared_at: datetime
    event_id: str


class Failover(Row):
    tenant: str
    occurred_at: datetime
    fleet: str
    phase: str
    source_region: str
    target_region: str
    active_regions: tuple[str, ...]
    policy: str | None
    reason: str
    is_degraded_mode: bool
    compliance_preserved: bool
    confidence: float | None
    ordered_by: str | None
    expires_at: datetime | None
    receipt: dict[str, object] | None
    event_id: str
    failover: str | None
    routing: dict[str, object] | None
    closing: dict[str, object] | None


queries = (
    Query(
        name="failover.policies",
        question="Which policies in force say who stands in for this region?",
        row=RoutingPolicy,
        sql="""
            SELECT
                p.tenant, p.policy_name, p.source_region, p.fallback_regions, p.conditions, p.declared_by,
                p.declared_at, p.declaration_event_id AS event_id
            FROM failover_routing_policies AS p
            WHERE p.tenant = who.tenant AND p.is_active AND p.source_region = $region
            ORDER BY p.policy_name
            LIMIT $limit
        """,
        order="policy_name, tenant",
        parameters={"region": Parameter(type=str, help="the region that might fail", required=True)},
    ),
    Query(
        name="failover.routing",
        question="Where does this fleet's traffic go now (first row), and how did it come to that?",
        row=Failover,
        sql="""
            SELECT
                e.tenant, e.occurred_at, e.fleet, e.phase, e.source_region, e.target_region, e.active_regions,
                e.policy, e.reason, e.is_degraded_mode, e.compliance_preserved, e.confidence, e.ordered_by,
                e.expires_at, e.receipt, e.event_id, e.failover, e.routing, e.closing
            FROM failover_events AS e
            WHERE e.tenant = who.tenant AND e.fleet = $fleet AND e.phase <> 'receipt_closed'
            ORDER BY e.event_id DESC
            LIMIT $limit
        """,
        order="event_id DESC",
        parameters={"fleet": Parameter(type=str, help="the fleet", required=True)},
    ),
    Query(
        name="failover.recent",
        question="Which fleets were moved between which regions, latest first?",
        row=Failover,
        sql="""
            SELECT
                e.tenant, e.occurred_at, e.fleet, e.phase, e.source_region, e.target_region, e.active_regions,
                e.policy, e.reason, e.is_degraded_mode, e.compliance_preserved, e.confidence, e.ordered_by,
                e.expires_at, e.receipt, e.event_id, e.failover, e.routing, e.closing
            FROM failover_events AS e
            WHERE e.tenant = who.tenant
            ORDER BY e.event_id DESC
            LIMIT $limit
        """,
        order="event_id DESC",
    ),
    Query(
        name="failover.of",
        question="What happened in this failover, or to this override, from its beginning?",
        row=Failover,
        sql="""
            SELECT
                e.tenant, e.occurred_at, e.fleet, e.phase, e.source_region, e.target_region, e.active_regions,
                e.policy, e.reason, e.is_degraded_mode, e.compliance_preserved, e.confidence, e.ordered_by,
                e.expires_at, e.receipt, e.event_id, e.failover, e.routing, e.closing
            FROM failover_events AS e
            WHERE e.tenant = who.tenant AND e.failover = $failover
            ORDER BY e.event_id
            LIMIT $limit
        """,
        order="event_id",
        parameters={"failover": Parameter(type=str, help="the id of the ruling that began it", required=True)},
    ),
)
