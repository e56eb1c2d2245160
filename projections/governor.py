"""The safety governor: owns `disaster_mode_states` and `disaster_mode_events`."""

from collections.abc import Iterator
from datetime import datetime

from relight.events.envelope import Recorded
from relight.events.governor import (
    DisasterModeActivated,
    DisasterModeDeactivated,
    DisasterModeDeescalated,
    DisasterModeEscalated,
    GovernorRuling,
)
from relight.projections.base import Append, Change, Column, History, Projection, Put, State
from relight.projections.query import Parameter, Query, Row

STATES = State(
    name="disaster_mode_states",
    key={"fleet": Column.TEXT},
    groups={
        "mode": {
            "mode_level": Column.TEXT,
            "region": Column.TEXT,
            "trigger_reason": Column.TEXT,
            "disabled_features": Column.TEXTS,
            "ordered_by": Column.TEXT,
            "activated_at": Column.TIME,
            "level_at": Column.TIME,
            "deactivated_at": Column.TIME,
        },
    },
)
EVENTS = History(
    name="disaster_mode_events",
    columns_={
        "fleet": Column.TEXT,
        "event_type": Column.TEXT,
        "from_level": Column.TEXT,
        "mode_level": Column.TEXT,
        "trigger_reason": Column.TEXT,
        "ordered_by": Column.TEXT,
        "details": Column.OBJECT,
    },
)
projection = Projection(name="governor", version=1, tables=(STATES, EVENTS))


@projection.on(DisasterModeActivated)
def activated(event: Recorded[DisasterModeActivated]) -> Iterator[Change]:
    data = event.data
    yield _history(data, "activated", "normal", data.mode_level, data.disabled_features)
    yield _mode(event, data.mode_level, data.disabled_features, activated_at=event.decidedat)


@projection.on(DisasterModeEscalated)
def escalated(event: Recorded[DisasterModeEscalated]) -> Iterator[Change]:
    data = event.data
    yield _history(data, "escalated", data.from_level, data.mode_level, data.disabled_features)
    yield _mode(event, data.mode_level, data.disabled_features, activated_at=data.activated_at)


@projection.on(DisasterModeDeescalated)
def deescalated(event: Recorded[DisasterModeDeescalated]) -> Iterator[Change]:
    data = event.data
    yield _history(data, "deescalated", data.from_level, data.mode_level, data.disabled_features)
    yield _mode(event, data.mode_level, data.disabled_features, activated_at=data.activated_at)


@projection.on(DisasterModeDeactivated)
def deactivated(event: Recorded[DisasterModeDeactivated]) -> Iterator[Change]:
    data = event.data
    yield _history(data, "deactivated", data.from_level, "normal", ())
    yield _mode(event, "normal", (), activated_at=data.activated_at, deactivated_at=event.decidedat)


def _mode(
    event: Recorded[DisasterModeActivated]
    | Recorded[DisasterModeEscalated]
    | Recorded[DisasterModeDeescalated]
    | Recorded[DisasterModeDeactivated],
    level: str,
    disabled_features: tuple[str, ...],
    *,
    activated_at: datetime | None,
    deactivated_at: datetime | None = None,
) -> Put:
    data: GovernorRuling = event.data
    mode = {
        "mode_level": level,
        "region": event.region,
        "trigger_reason": data.reason,
        "disabled_features": disabled_features,
        "ordered_by": data.ordered_by,
        "activated_at": activated_at,
        "level_at": event.decidedat,
        "deactivated_at": deactivated_at,
    }
    return Put(STATES, (data.fleet,), "mode", mode)


def _history(
    data: GovernorRuling, event_type: str, from_level: str, level: str, disabled_features: tuple[str, ...]
) -> Append:
    return Append(
        EVENTS,
        {
            "fleet": data.fleet,
            "event_type": event_type,
            "from_level": from_level,
            "mode_level": level,
            "trigger_reason": data.reason,
            "ordered_by": data.ordered_by,
            "details": {"signals": data.signals, "disabled_features": list(disabled_features)},
        },
    )


class RaisedMode(Row):
    tenant: str
    fleet: str
    mode_level: str
    region: str
    trigger_reason: str
    disabled_features: tuple[str, ...]
    ordered_by: str | None
    activated_at: datetime
    level_at: datetime
    event_id: str


class ModeHistory(Row):
    tenant: str
    occurred_at: datetime
    event_type: str
    from_level: str
    mode_level: str
    region: str
    trigger_reason: str
    ordered_by: str | None
    details: dict[str, object]
    event_id: str


queries = (
    Query(
        name="governor.not_normal",
        question="Which fleets are not in normal mode, why, and what is switched off there?",
        row=RaisedMode,
        sql="""
            SELECT
                s.tenant, s.fleet, s.mode_level, s.region, s.trigger_reason, s.disabled_features, s.ordered_by,
                s.activated_at, s.level_at, s.mode_event_id AS event_id
            FROM disaster_mode_states AS s
            WHERE s.tenant = who.tenant AND s.mode_level IN ('degraded', 'minimal', 'emergency')
            ORDER BY s.activated_at DESC
            LIMIT $limit
        """,
        order="activated_at DESC, tenant, fleet",
    ),
    Query(
        name="governor.history",
        question="How did this fleet's mode change, and on which signals, latest first?",
        row=ModeHistory,
        sql="""
            SELECT
                e.tenant, e.occurred_at, e.event_type, e.from_level, e.mode_level, e.region, e.trigger_reason,
                e.ordered_by, e.details, e.event_id
            FROM disaster_mode_events AS e
            WHERE e.tenant = who.tenant AND e.fleet = $fleet
            ORDER BY e.event_id DESC
            LIMIT $limit
        """,
        order="event_id DESC",
        parameters={"fleet": Parameter(type=str, help="the fleet", required=True)},
    ),
)
