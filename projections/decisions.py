"""Decisions: owns `autopilot_decisions` and `decision_audit_logs`."""

from collections.abc import Iterator, Mapping
from datetime import datetime

from relight.events.decisions import (
    DecisionBegun,
    DecisionCallsCounted,
    DecisionCheckpointed,
    DecisionOpening,
    DecisionOutcomeKnown,
    DecisionTaken,
)
from relight.events.envelope import Recorded
from relight.events.values import Content
from relight.projections.base import Append, Change, Column, History, Projection, Put, State
from relight.projections.query import Parameter, Query, Row

DECISIONS = State(
    name="autopilot_decisions",
    key={"decision": Column.TEXT},
    groups={
        "opening": {
            "decision_type": Column.TEXT,
            "agent": Column.TEXT,
            "task": Column.TEXT,
            "region": Column.TEXT,
            "context": Column.OBJECT,
            "opened_at": Column.TIME,
        },
        "choice": {
            "decision_taken": Column.TEXT,
            "reasoning": Column.TEXT,
            "confidence": Column.FLOAT,
            "provider": Column.TEXT,
            "model": Column.TEXT,
            "request_sha256": Column.TEXT,
            "request_bytes": Column.BIGINT,
        },
        "result": {
            "outcome": Column.TEXT,
            "error_class": Column.TEXT,
            "input_tokens": Column.BIGINT,
            "output_tokens": Column.BIGINT,
            "cost_microusd": Column.BIGINT,
            "latency_ms": Column.BIGINT,
            "request_id": Column.TEXT,
        },
    },
)
AUDIT = History(
    name="decision_audit_logs",
    columns_={
        "decision": Column.TEXT,
        "checkpoint_type": Column.TEXT,
        "state_snapshot": Column.OBJECT,
        "content_sha256": Column.TEXT,
        "content_bytes": Column.BIGINT,
    },
)
projection = Projection(name="decisions", version=1, tables=(DECISIONS, AUDIT))

PENDING, KNOWN = 0, 1
"""Ranks of a result: an outcome outranks `pending`, whoever's clock ran ahead."""
BEGUN, TAKEN = 0, 1
"""Ranks of an opening: what was known when deciding outranks what was known at the beginning."""


@projection.on(DecisionBegun)
def begun(event: Recorded[DecisionBegun]) -> Iterator[Change]:
    yield _opening(event, BEGUN)
    yield _pending(event.data.decision)
    yield _audit(event.data.decision, "begun", event.data.context)


@projection.on(DecisionTaken)
def taken(event: Recorded[DecisionTaken]) -> Iterator[Change]:
    data = event.data
    yield _opening(event, TAKEN)
    yield _pending(data.decision)
    choice = {
        "decision_taken": data.decision_taken,
        "reasoning": data.reasoning,
        "confidence": data.confidence,
        "provider": data.provider,
        "model": data.model,
        "request_sha256": data.request.sha256 if data.request else None,
        "request_bytes": data.request.size_bytes if data.request else None,
    }
    yield Put(DECISIONS, (data.decision,), "choice", choice)
    yield _audit(data.decision, "taken", data.context, data.request)


@projection.on(DecisionCheckpointed)
def checkpointed(event: Recorded[DecisionCheckpointed]) -> Iterator[Change]:
    data = event.data
    yield _audit(data.decision, data.checkpoint_type, data.state_snapshot, data.content)


@projection.on(DecisionOutcomeKnown)
def outcome_known(event: Recorded[DecisionOutcomeKnown]) -> Iterator[Change]:
    data = event.data
    result = {
        "outcome": data.outcome.value,
        "error_class": data.error_class,
        "input_tokens": data.input_tokens,
        "output_tokens": data.output_tokens,
        "cost_microusd": data.cost_microusd,
        "latency_ms": data.latency_ms,
        "request_id": data.request_id,
    }
    yield Put(DECISIONS, (data.decision,), "result", result, rank=KNOWN)
    known: dict[str, object] = {"outcome": data.outcome.value, "error_class": data.error_class}
    if data.attempts is not None:
        known |= {"attempts": data.attempts, "first_token_ms": data.first_token_ms}
    yield _audit(data.decision, "outcome_known", {**(data.attributes or {}), **known})


@projection.on(DecisionCallsCounted)
def calls_counted(event: Recorded[DecisionCallsCounted]) -> Iterator[Change]:
    data = event.data
    counted = {"guarded": data.guarded, "calls": data.calls, "since": data.since.isoformat()}
    yield _audit(data.site, "calls_counted", counted)


def _opening(event: Recorded[DecisionBegun] | Recorded[DecisionTaken], rank: int) -> Put:
    data: DecisionOpening = event.data
    opening = {
        "decision_type": data.decision_type,
        "agent": data.agent,
        "task": data.task,
        "region": event.region,
        "context": data.context,
        "opened_at": event.time,
    }
    return Put(DECISIONS, (data.decision,), "opening", opening, rank)


def _pending(decision: str) -> Put:
    result = dict.fromkeys(DECISIONS.groups["result"]) | {"outcome": "pending"}
    return Put(DECISIONS, (decision,), "result", result, rank=PENDING)


def _audit(decision: str, checkpoint_type: str, state: Mapping[str, object], content: Content | None = None) -> Append:
    return Append(
        AUDIT,
        {
            "decision": decision,
            "checkpoint_type": checkpoint_type,
            "state_snapshot": state,
            "content_sha256": content.sha256 if content else None,
            "content_bytes": content.size_bytes if content else None,
        },
    )


class Decision(Row):
    tenant: str
    decision: str
    decision_type: str | None
    agent: str | None
    task: str | None
    decision_taken: str | None
    reasoning: str | None
    confidence: float | None
    outcome: str
    error_class: str | None
    opened_at: datetime | None
    event_id: str


class Checkpoint(Row):
    tenant: str
    occurred_at: datetime
    checkpoint_type: str
    state_snapshot: dict[str, object]
    content_sha256: str | None
    event_id: str


class CallCount(Row):
    tenant: str
    decision_type: str
    outcome: str
    decisions: int
    input_tokens: int | None
    output_tokens: int | None
    event_id: str


queries = (
    Query(
        name="decisions.by_outcome",
        question="Which decisions came out like this (pending, success, failure, unknown), latest first?",
        row=Decision,
        sql="""
            SELECT
                d.tenant, d.decision, d.decision_type, d.agent, d.task, d.decision_taken, d.reasoning, d.confidence,
                d.outcome, d.error_class, d.opened_at, d.result_event_id AS event_id
            FROM autopilot_decisions AS d
            WHERE d.tenant = who.tenant AND d.outcome = $outcome
            ORDER BY d.result_event_id DESC
            LIMIT $limit
        """,
        order="event_id DESC",
        parameters={"outcome": Parameter(type=str, help="pending, success, failure or unknown", default="failure")},
    ),
    Query(
        name="decisions.of_task",
        question="What did which agent decide for this task, in order, and how did each decision come out?",
        row=Decision,
        sql="""
            SELECT
                d.tenant, d.decision, d.decision_type, d.agent, d.task, d.decision_taken, d.reasoning, d.confidence,
                d.outcome, d.error_class, d.opened_at, d.opening_event_id AS event_id
            FROM autopilot_decisions AS d
            WHERE d.tenant = who.tenant AND d.task = $task
            ORDER BY d.opened_at, d.opening_event_id
            LIMIT $limit
        """,
        order="opened_at, event_id",
        parameters={"task": Parameter(type=str, help="the task", required=True)},
    ),
    Query(
        name="decisions.audit",
        question="What did the agent know and do, step by step, on the way to this decision?",
        row=Checkpoint,
        sql="""
            SELECT a.tenant, a.occurred_at, a.checkpoint_type, a.state_snapshot, a.content_sha256, a.event_id
            FROM decision_audit_logs AS a
            WHERE a.tenant = who.tenant AND a.decision = $decision
            ORDER BY a.event_id
            LIMIT $limit
        """,
        order="event_id",
        parameters={"decision": Parameter(type=str, help="the decision", required=True)},
    ),
    Query(
        name="decisions.counts",
        question="How many decisions of each type came out how, and with how many tokens?",
        row=CallCount,
        sql="""
            SELECT
                d.tenant, d.decision_type, d.outcome, count(*) AS decisions,
                sum(d.input_tokens)::bigint AS input_tokens, sum(d.output_tokens)::bigint AS output_tokens,
                max(d.result_event_id::text) AS event_id
            FROM autopilot_decisions AS d
            WHERE d.tenant = who.tenant AND d.decision_type IS NOT NULL AND d.outcome IS NOT NULL
            GROUP BY d.tenant, d.decision_type, d.outcome
            ORDER BY d.decision_type, d.outcome
            LIMIT $limit
        """,
        order="tenant, decision_type, outcome",
    ),
)
