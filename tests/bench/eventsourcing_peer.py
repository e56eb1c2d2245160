"""The same agent calls projected by eventsourcing: its application, subscription and tracking; rows like ours."""

import asyncio
import time
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import psycopg
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import Tracking
from eventsourcing.postgres import PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from measuring import Bench
from psycopg.types.json import Jsonb
from workload import CALL_EVENTS, FAILS_EVERY

NOTE = "same PostgreSQL; it commits each event by itself, into two tables without row-level security"
TABLES = """
CREATE TABLE peer_decisions (
    decision text PRIMARY KEY, agent text, model text, context jsonb, opened_at timestamptz, outcome text,
    error_class text, input_tokens bigint, latency_ms bigint
);
CREATE TABLE peer_audit (
    event_id uuid PRIMARY KEY, occurred_at timestamptz, decision text, checkpoint_type text, state_snapshot jsonb
);
"""


class Call(Aggregate):
    """An agent call, four events long as in `workload.call`."""

    @event("Taken")
    def __init__(self, decision: str, agent: str, model: str, context: dict[str, object]) -> None:
        self.decision, self.agent, self.model, self.context = decision, agent, model, context

    @event("Checkpointed")
    def checkpoint(self, checkpoint_type: str, state: dict[str, object]) -> None:
        pass

    @event("OutcomeKnown")
    def know(self, outcome: str, error_class: str | None, input_tokens: int, latency_ms: int) -> None:
        pass

    @event("Answered")
    def answer(self, service_name: str, latency_ms: int) -> None:
        pass


class Calls(Application[UUID]):
    """Where they are stored."""


class Decisions(PostgresTrackingRecorder):
    """Each event: its tracking, a row of state where there is one, a row of history."""

    def take(self, fact: Any, tracking: Tracking) -> None:
        kind, decision = type(fact).__name__, str(fact.originator_id)
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            if kind == "Taken":
                cursor.execute(
                    "INSERT INTO peer_decisions VALUES (%s, %s, %s, %s, %s, 'pending')"
                    " ON CONFLICT (decision) DO NOTHING",
                    (decision, fact.agent, fact.model, Jsonb(fact.context), fact.timestamp),
                    prepare=True,
                )
            elif kind == "OutcomeKnown":
                cursor.execute(
                    "UPDATE peer_decisions SET outcome = %s, error_class = %s, input_tokens = %s, latency_ms = %s"
                    " WHERE decision = %s",
                    (fact.outcome, fact.error_class, fact.input_tokens, fact.latency_ms, decision),
                    prepare=True,
                )
            cursor.execute(
                "INSERT INTO peer_audit VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                (uuid4(), fact.timestamp, decision, kind, Jsonb({"kind": kind})),
                prepare=True,
            )


class ToDecisions(Projection[Decisions]):
    """From the library's subscription to `Decisions`."""

    name = "decisions"

    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        self.view.take(domain_event, tracking)


async def peer_rates(bench: Bench, rounds: int) -> list[float]:
    """Events a second in each round."""
    rates = []
    for _ in range(rounds):
        async with bench.database() as url:
            rates.append(await asyncio.to_thread(_round, url, bench.count(500, 150)))
    return rates


def _round(url: str, calls: int) -> float:
    with psycopg.connect(url) as connection:
        connection.execute(TABLES)
    parts = urlsplit(url)
    environment = {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": parts.path.lstrip("/"),
        "POSTGRES_HOST": parts.hostname or "",
        "POSTGRES_PORT": str(parts.port),
        "POSTGRES_USER": parts.username or "",
        "POSTGRES_PASSWORD": parts.password or "",
    }
    application = Calls(environment)
    last = application.save(*(_call(number) for number in range(calls)))[-1].notification.id
    application.close()
    started = time.perf_counter()
    with ProjectionRunner(
        application_class=Calls, projection_class=ToDecisions, view_class=Decisions, env=environment
    ) as runner:
        runner.wait(last, timeout=300)
        return calls * CALL_EVENTS / (time.perf_counter() - started)


def _call(number: int) -> Call:
    call = Call(f"call-{number}", f"agent-{number % 50}", f"claude-{number % 5}", {"order": number, "attempt": 1})
    call.checkpoint("attempt", {"number": 1, "status": 200})
    call.know("failure" if number % FAILS_EVERY == 0 else "success", None, 1_200, 300)
    call.answer("anthropic/claude/eu", 300)
    return call
