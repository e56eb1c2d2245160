"""Steps of tasks: the questions about those audited decisions that are one, of the tables that decisions own."""

from relight.projections.query import Query, Row


class StepDone(Row):
    tenant: str
    task: str
    step: str
    key: str
    times: int
    epochs: list[int]
    event_id: str


queries = (
    Query(
        name="tasks.steps_begun_twice",
        question="Which steps of tasks were begun under several epochs, so that they may have been done twice?",
        row=StepDone,
        sql="""
            SELECT
                d.tenant, d.task, d.step, d.key, count(*) AS times,
                array_agg(d.epoch ORDER BY d.event_id) AS epochs, max(d.event_id::text)::uuid AS event_id
            FROM (
                SELECT
                    a.tenant, a.decision AS task, a.state_snapshot ->> 'step' AS step,
                    a.state_snapshot ->> 'key' AS key, (a.state_snapshot ->> 'epoch')::bigint AS epoch, a.event_id
                FROM decision_audit_logs AS a
                WHERE a.tenant = who.tenant AND a.checkpoint_type = 'task_step_begun'
            ) AS d
            GROUP BY d.tenant, d.task, d.step, d.key
            HAVING count(DISTINCT d.epoch) > 1
            ORDER BY 7 DESC, 2, 3, 4
            LIMIT $limit
        """,
        order="event_id DESC, task, step, key",
    ),
    Query(
        name="tasks.steps_done_twice",
        question="Which steps of tasks were done more than once, and under which epochs?",
        row=StepDone,
        sql="""
            SELECT
                d.tenant, d.task, d.step, d.key, count(*) AS times,
                array_agg(d.epoch ORDER BY d.event_id) AS epochs, max(d.event_id::text)::uuid AS event_id
            FROM (
                SELECT
                    a.tenant, a.decision AS task, a.state_snapshot ->> 'step' AS step,
                    a.state_snapshot ->> 'key' AS key, (a.state_snapshot ->> 'epoch')::bigint AS epoch, a.event_id
                FROM decision_audit_logs AS a
                WHERE a.tenant = who.tenant AND a.checkpoint_type = 'task_step'
            ) AS d
            GROUP BY d.tenant, d.task, d.step, d.key
            HAVING count(*) > 1
            ORDER BY 7 DESC, 2, 3, 4
            LIMIT $limit
        """,
        order="event_id DESC, task, step, key",
    ),
)
