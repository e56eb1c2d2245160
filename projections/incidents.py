"""Incidents: owns `crisis_incidents` and `crisis_recovery_logs`.

An incident's status only moves forward, so each fact knows its place and ranks by it, whoever's clock ran ahead:
a resolution is never undone by a late start of the mitigation. There is no reopening: it would leave nothing but
clocks to say which of two statuses is the later one. What breaks again is a new incident that `reopens` the old one.
"""

from collections.abc import Iterator
from datetime import datetime

from relight.events.envelope import Recorded
from relight.events.incidents import (
    IncidentActionTaken,
    IncidentEvent,
    IncidentMitigationStarted,
    IncidentOpened,
    IncidentPostmortemPublished,
    IncidentReassessed,
    IncidentResolved,
)
from relight.projections.base import Append, Change, Column, History, Projection, Put, State
from relight.projections.query import Parameter, Query, Row

INCIDENTS = State(
    name="crisis_incidents",
    key={"incident": Column.TEXT},
    groups={
        "opening": {
            "incident_name": Column.TEXT,
            "region": Column.TEXT,
            "reopens": Column.TEXT,
            "opened_by": Column.TEXT,
            "opened_at": Column.TIME,
        },
        "assessment": {
            "severity": Column.TEXT,
            "affected_domains": Column.TEXTS,
            "description": Column.TEXT,
        },
        "progress": {"status": Column.TEXT, "status_by": Column.TEXT, "status_at": Column.TIME},
        "remediation": {"remediation_steps": Column.TEXTS},
        "resolution": {"resolution": Column.TEXT, "resolved_at": Column.TIME},
        "postmortem": {"postmortem_summary": Column.TEXT, "postmortem_sha256": Column.TEXT},
    },
)
LOGS = History(
    name="crisis_recovery_logs",
    columns_={
        "incident": Column.TEXT,
        "action_taken": Column.TEXT,
        "executed_by": Column.TEXT,
        "assumptions": Column.TEXTS,
        "result": Column.TEXT,
        "details": Column.OBJECT,
    },
)
projection = Projection(name="incidents", version=1, tables=(INCIDENTS, LOGS))

ACTIVE, MITIGATING, RESOLVED, POSTMORTEM = 0, 1, 2, 3
"""Ranks of a status: its place in an incident's life."""
OPENED, REASSESSED = 0, 1
"""Ranks of an assessment: any later look outranks the first."""


@projection.on(IncidentOpened)
def opened(event: Recorded[IncidentOpened]) -> Iterator[Change]:
    data = event.data
    opening = {
        "incident_name": data.incident_name,
        "region": event.region,
        "reopens": data.reopens,
        "opened_by": data.executed_by,
        "opened_at": event.time,
    }
    yield Put(INCIDENTS, (data.incident,), "opening", opening)
    yield _assessment(data, OPENED)
    yield _progress(event, "active", ACTIVE)
    yield _log(data, "opened", data.description, {**_seen(data), "reopens": data.reopens})


@projection.on(IncidentReassessed)
def reassessed(event: Recorded[IncidentReassessed]) -> Iterator[Change]:
    data = event.data
    yield _assessment(data, REASSESSED)
    yield _log(data, "reassessed", data.description, {**_seen(data), "reason": data.reason})


@projection.on(IncidentMitigationStarted)
def mitigation_started(event: Recorded[IncidentMitigationStarted]) -> Iterator[Change]:
    data = event.data
    yield Put(INCIDENTS, (data.incident,), "remediation", {"remediation_steps": data.remediation_steps})
    yield _progress(event, "mitigating", MITIGATING)
    yield _log(data, "mitigation_started", None, {"remediation_steps": list(data.remediation_steps)})


@projection.on(IncidentActionTaken)
def action_taken(event: Recorded[IncidentActionTaken]) -> Iterator[Change]:
    data = event.data
    yield _log(data, data.action_taken, data.result, {}, data.assumptions)


@projection.on(IncidentResolved)
def resolved(event: Recorded[IncidentResolved]) -> Iterator[Change]:
    data = event.data
    resolution = {"resolution": data.resolution, "resolved_at": event.time}
    yield Put(INCIDENTS, (data.incident,), "resolution", resolution)
    yield _progress(event, "resolved", RESOLVED)
    yield _log(data, "resolved", data.resolution, {})


@projection.on(IncidentPostmortemPublished)
def postmortem_published(event: Recorded[IncidentPostmortemPublished]) -> Iterator[Change]:
    data = event.data
    sha256 = data.document.sha256 if data.document else None
    postmortem = {"postmortem_summary": data.summary, "postmortem_sha256": sha256}
    yield Put(INCIDENTS, (data.incident,), "postmortem", postmortem)
    yield _progress(event, "postmortem", POSTMORTEM)
    yield _log(data, "postmortem_published", data.summary, {"document_sha256": sha256})


def _assessment(data: IncidentOpened | IncidentReassessed, rank: int) -> Put:
    assessment = {
        "severity": data.severity.value,
        "affected_domains": data.affected_domains,
        "description": data.description,
    }
    return Put(INCIDENTS, (data.incident,), "assessment", assessment, rank)


def _progress(
    event: Recorded[IncidentOpened]
    | Recorded[IncidentMitigationStarted]
    | Recorded[IncidentResolved]
    | Recorded[IncidentPostmortemPublished],
    status: str,
    rank: int,
) -> Put:
    data: IncidentEvent = event.data
    progress = {"status": status, "status_by": data.executed_by, "status_at": event.time}
    return Put(INCIDENTS, (data.incident,), "progress", progress, rank)


def _seen(data: IncidentOpened | IncidentReassessed) -> dict[str, object]:
    return {"severity": data.severity.value, "affected_domains": list(data.affected_domains)}


def _log(
    data: IncidentEvent,
    action: str,
    result: str | None,
    details: dict[str, object],
    assumptions: tuple[str, ...] = (),
) -> Append:
    return Append(
        LOGS,
        {
            "incident": data.incident,
            "action_taken": action,
            "executed_by": data.executed_by,
            "assumptions": assumptions,
            "result": result,
            "details": details,
        },
    )


class Incident(Row):
    tenant: str
    incident: str
    incident_name: str | None
    status: str
    severity: str | None
    affected_domains: tuple[str, ...] | None
    description: str | None
    region: str | None
    remediation_steps: tuple[str, ...] | None
    reopens: str | None
    opened_at: datetime | None
    status_by: str
    status_at: datetime
    resolution: str | None
    resolved_at: datetime | None
    event_id: str


class TimelineEntry(Row):
    tenant: str
    occurred_at: datetime
    region: str
    action_taken: str
    executed_by: str
    assumptions: tuple[str, ...]
    result: str | None
    details: dict[str, object]
    event_id: str


queries = (
    Query(
        name="incidents.open_now",
        question="Which incidents are not yet resolved, how bad are they, and what is being done?",
        row=Incident,
        sql="""
            SELECT
                i.tenant, i.incident, i.incident_name, i.status, i.severity, i.affected_domains, i.description,
                i.region, i.remediation_steps, i.reopens, i.opened_at, i.status_by, i.status_at, i.resolution,
                i.resolved_at, i.progress_event_id AS event_id
            FROM crisis_incidents AS i
            WHERE i.tenant = who.tenant AND i.status IN ('active', 'mitigating')
            ORDER BY i.progress_event_id DESC
            LIMIT $limit
        """,
        order="event_id DESC",
    ),
    Query(
        name="incidents.by_status",
        question="Which incidents are active, mitigating, resolved (but without postmortem) or at postmortem?",
        row=Incident,
        sql="""
            SELECT
                i.tenant, i.incident, i.incident_name, i.status, i.severity, i.affected_domains, i.description,
                i.region, i.remediation_steps, i.reopens, i.opened_at, i.status_by, i.status_at, i.resolution,
                i.resolved_at, i.progress_event_id AS event_id
            FROM crisis_incidents AS i
            WHERE i.tenant = who.tenant AND i.status = $status
            ORDER BY i.progress_event_id DESC
            LIMIT $limit
        """,
        order="event_id DESC",
        parameters={
            "status": Parameter(type=str, help="active, mitigating, resolved or postmortem", default="resolved")
        },
    ),
    Query(
        name="incidents.timeline",
        question="Who did what in this incident, on which assumptions, and with what result?",
        row=TimelineEntry,
        sql="""
            SELECT
                l.tenant, l.occurred_at, l.region, l.action_taken, l.executed_by, l.assumptions, l.result,
                l.details, l.event_id
            FROM crisis_recovery_logs AS l
            WHERE l.tenant = who.tenant AND l.incident = $incident
            ORDER BY l.event_id
            LIMIT $limit
        """,
        order="event_id",
        parameters={"incident": Parameter(type=str, help="the incident", required=True)},
    ),
)
