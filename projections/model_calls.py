"""Model calls: the questions about those decisions that are one, of the tables that decisions own."""

from datetime import datetime

from relight.projections.query import EVER, Parameter, Query, Row, first_id

ENDED_CALLS = f"""FROM autopilot_decisions AS d
            WHERE d.tenant = who.tenant
                AND d.outcome IN ('success', 'failure', 'unknown')
                AND d.result_event_id >= {first_id("$since")}
                AND d.result_event_id < {first_id("$since", "$seconds * 1000")}
                AND d.provider IS NOT NULL"""
"""Of a tenant, within so many `$seconds` from `$since` on."""
PERIOD = {
    "since": Parameter(type=datetime, help="from when on they ended", required=True),
    "seconds": Parameter(type=int, help="how long from then", default=86_400),
}


class ModelCall(Row):
    tenant: str
    decision: str
    agent: str | None
    task: str | None
    provider: str
    model: str | None
    taken_at: datetime | None
    outcome: str | None
    error_class: str | None
    attempts: int | None
    input_tokens: int | None
    output_tokens: int | None
    cost_microusd: int | None
    first_token_ms: int | None
    latency_ms: int | None
    request_id: str | None
    event_id: str


class Cost(Row):
    tenant: str
    agent: str | None
    model: str | None
    calls: int
    failed: int
    input_tokens: int | None
    output_tokens: int | None
    cost_microusd: int | None
    unpriced: int
    event_id: str


class Spent(Row):
    tenant: str
    calls: int
    input_tokens: int
    output_tokens: int
    cost_microusd: int
    unpriced: int
    event_id: str


class CallSite(Row):
    tenant: str
    site: str
    guarded: bool
    calls: int
    reports: int
    first_at: datetime
    last_at: datetime
    event_id: str


queries = (
    Query(
        name="decisions.calls",
        question="Which model calls were made last, how did each come out, and what did it take?",
        row=ModelCall,
        sql="""
            SELECT
                d.tenant, d.decision, d.agent, d.task, d.provider, d.model, d.opened_at AS taken_at, d.outcome,
                d.error_class, (a.state_snapshot ->> 'attempts')::bigint AS attempts, d.input_tokens, d.output_tokens,
                d.cost_microusd, (a.state_snapshot ->> 'first_token_ms')::bigint AS first_token_ms, d.latency_ms,
                d.request_id, d.choice_event_id AS event_id
            FROM autopilot_decisions AS d
            LEFT JOIN LATERAL (
                SELECT l.state_snapshot
                FROM decision_audit_logs AS l
                WHERE l.tenant = d.tenant AND l.event_id = d.result_event_id
                LIMIT 1
            ) AS a ON true
            WHERE d.tenant = who.tenant AND d.provider IS NOT NULL AND ($model = '*' OR d.model = $model)
            ORDER BY d.choice_event_id DESC
            LIMIT $limit
        """,
        order="event_id DESC",
        parameters={"model": Parameter(type=str, help="the model asked; * for any", default="*")},
    ),
    Query(
        name="decisions.cost",
        question="What did the model calls that ended from then on cost, by agent and model?",
        row=Cost,
        sql=f"""
            SELECT
                d.tenant, d.agent, d.model, count(*) AS calls, count(*) FILTER (WHERE d.outcome = 'failure') AS failed,
                sum(d.input_tokens)::bigint AS input_tokens, sum(d.output_tokens)::bigint AS output_tokens,
                sum(d.cost_microusd)::bigint AS cost_microusd,
                count(*) FILTER (WHERE d.cost_microusd IS NULL AND d.input_tokens IS NOT NULL) AS unpriced,
                max(d.result_event_id::text) AS event_id
            {ENDED_CALLS}
            GROUP BY d.tenant, d.agent, d.model
            ORDER BY cost_microusd DESC NULLS LAST, d.agent, d.model
            LIMIT $limit
        """,
        order="cost_microusd DESC NULLS LAST, agent, model",
        parameters=PERIOD,
    ),
    Query(
        name="decisions.spent",
        question="What did the model calls of an agent or for a task take, of those that ended from then on?",
        row=Spent,
        sql=f"""
            SELECT
                d.tenant,
                count(*) FILTER (
                    WHERE coalesce(d.error_class, '') NOT IN ('budget_exceeded', 'circuit_open')
                ) AS calls,
                coalesce(sum(d.input_tokens), 0)::bigint AS input_tokens,
                coalesce(sum(d.output_tokens), 0)::bigint AS output_tokens,
                coalesce(sum(d.cost_microusd), 0)::bigint AS cost_microusd,
                count(*) FILTER (WHERE d.cost_microusd IS NULL AND d.output_tokens IS NOT NULL) AS unpriced,
                max(d.result_event_id::text) AS event_id
            {ENDED_CALLS}
                AND ($agent = '*' OR d.agent = $agent OR ($agent = '' AND d.agent IS NULL))
                AND ($task = '*' OR d.task = $task OR ($task = '' AND d.task IS NULL))
            GROUP BY d.tenant
            ORDER BY event_id
            LIMIT $limit
        """,
        order="event_id",
        parameters=PERIOD
        | {
            "agent": Parameter(type=str, help="the agent; * for any, nothing for calls of no agent", default="*"),
            "task": Parameter(type=str, help="the task; * for any, nothing for calls for no task", default="*"),
        },
    ),
    Query(
        name="decisions.call_sites",
        question="Which places in the programs called a model since then, how often, and through a guard or not?",
        row=CallSite,
        sql=f"""
            SELECT
                d.tenant, d.site, d.guarded, sum(d.calls)::bigint AS calls, count(*) AS reports,
                min(d.occurred_at) AS first_at, max(d.occurred_at) AS last_at, max(d.event_id::text) AS event_id
            FROM (
                SELECT
                    a.tenant, a.decision AS site, a.occurred_at, a.event_id,
                    coalesce((a.state_snapshot ->> 'guarded')::boolean, false) AS guarded,
                    coalesce((a.state_snapshot ->> 'calls')::bigint, 0) AS calls
                FROM decision_audit_logs AS a
                WHERE a.tenant = who.tenant AND a.checkpoint_type = 'calls_counted'
                    AND a.event_id >= {first_id("$since")}
            ) AS d
            GROUP BY d.tenant, d.site, d.guarded
            ORDER BY d.site, d.guarded
            LIMIT $limit
        """,
        order="tenant, site, guarded",
        parameters={"since": Parameter(type=datetime, help="from when on they were counted", default=EVER)},
    ),
)
