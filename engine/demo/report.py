"""What the day left behind, asked of both stores while its servers run."""

from math import ceil

from pydantic import BaseModel, JsonValue

from relight.engine.demo.run import Day
from relight.engine.demo.world import ACME, FOLLOWED_CALL, FOLLOWED_TASK, GLOBEX, INCIDENT
from relight.engine.service import PROJECTOR_ROLE
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.digest import digest_memory, digest_postgres
from relight.engine.tables.queries import run
from relight.events.envelope import PLATFORM

Rows = list[dict[str, JsonValue]]

TIMELINE = "incidents.timeline"
ASKED: dict[str, tuple[str, dict[str, object]]] = {
    "breakers.open_now": (GLOBEX, {}),
    "decisions.audit": (ACME, {"decision": FOLLOWED_CALL}),
    "tasks.migrations": (ACME, {"task": FOLLOWED_TASK}),
    TIMELINE: (PLATFORM, {"incident": INCIDENT}),
}
"""Queries, each with the tenant that asks and its arguments."""


class Freshness(BaseModel):
    """From `record()` until visible in the tables, live events, in milliseconds."""

    p50: float
    p99: float
    events: int


class Report(BaseModel):
    """`tables` are rows by table; `digests` SHA-256 by store and table, at stream sequence `seq`."""

    scripted: bool = True
    seed: int
    tables: dict[str, int]
    queries: dict[str, Rows]
    timeline: Rows
    freshness_ms: Freshness
    digests: dict[str, dict[str, str]]
    equal: bool
    position: str
    seq: int

    @property
    def failures(self) -> list[str]:
        """What should not be, a sentence each."""
        empty = [name for name, rows in self.tables.items() if rows == 0]
        live, folded = self.digests["postgres"], self.digests["memory"]
        unequal = [name for name in self.tables if live[name] != folded[name]]
        return [
            *([f"tables without a row: {', '.join(empty)}"] if empty else []),
            *([f"tables whose digests differ: {', '.join(unequal)}"] if unequal else []),
        ]


async def report_on(day: Day) -> Report:
    """Raises `QueryError`, `Unreachable`."""
    session = await connect_session(day.servers.database_url, role=PROJECTOR_ROLE)
    try:
        live = await digest_postgres(session)
    finally:
        await session.close(timeout=2)
    folded = await digest_memory(day.service.client, up_to_seq=live.seq)
    waits = day.freshness_ms
    answers = {name: await _ask(day, name, tenant, arguments) for name, (tenant, arguments) in ASKED.items()}
    return Report(
        seed=day.seed,
        tables=live.rows,
        timeline=answers.pop(TIMELINE),
        queries=answers,
        freshness_ms=Freshness(
            p50=round(waits[ceil(len(waits) * 0.5) - 1], 1),
            p99=round(waits[ceil(len(waits) * 0.99) - 1], 1),
            events=len(waits),
        ),
        digests={"postgres": live.tables, "memory": folded.tables},
        equal=live.tables == folded.tables,
        position=live.position,
        seq=live.seq,
    )


async def _ask(day: Day, name: str, tenant: str, arguments: dict[str, object]) -> Rows:
    rows = await run(day.pool, name, tenant=tenant, arguments=arguments)
    return [row.model_dump(mode="json") for row in rows]
