"""A rebuild and a rollback that nobody notices: queries and recording go on, and so do readers that take long."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import stack
from everything import publish_everything
from rebuilt import PUBLIC, generation, rebuild, rolled_back
from stack import failed, nats_server, options, projecting, until

from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.tables import rebuild as rebuild_module
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.pools import PoolOptions, open_pool
from relight.engine.tables.queries import parse, run
from relight.projections.catalog import queries, tables
from relight.projections.query import MAX_LIMIT

PROJECTORS = """
SELECT pid, backend_start FROM pg_stat_activity
WHERE application_name = 'relight-projector' AND datname = current_database() ORDER BY 1
"""
ASKED: dict[type, Any] = {str: "api", int: 1, datetime: datetime(2026, 3, 1, tzinfo=UTC)}


class Load:
    """A recorder that never stops, and readers that ask every query again and again, with what they were told."""

    def __init__(self, recorder: Recorder, database: str) -> None:
        self._recorder = recorder
        self._database = database
        self._going = True
        self.recorded = 0
        self.answers: Counter[str] = Counter()
        self.slowest_s = 0.0

    async def record(self) -> None:
        while self._going:
            for _ in range(20):
                self._recorder.record(failed(self.recorded, f"service {self.recorded % 7}"))
                self.recorded += 1
            await asyncio.sleep(0.02)  # a load, not a wait: a thousand events a second

    async def read(self) -> None:
        """Rows of a history are only ever added to: fewer than before would be a table half swapped."""
        fewest: Counter[str] = Counter()
        async with await open_pool(self._database, PoolOptions(size=4)) as pool:
            while self._going:
                for name, query in queries().items():
                    arguments = {n: ASKED[p.type] for n, p in query.parameters.items() if p.required}
                    began = time.monotonic()
                    await run(pool, name, tenant="acme", arguments=parse(query, arguments))
                    self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                    self.answers[name] += 1
                async with pool.transaction("relight_reader", tenant="acme") as connection:
                    for table in tables():
                        rows = await connection.fetchval(f"SELECT count(*) FROM {table.name}")
                        assert rows >= fewest[table.name] > -1, table.name
                        fewest[table.name] = rows

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        working = [asyncio.create_task(self.record()), *(asyncio.create_task(self.read()) for _ in range(2))]
        try:
            yield
        finally:
            self._going = False
            await asyncio.gather(*working)  # a query that failed is raised here


async def test_a_rebuild_and_a_rollback_under_load_are_noticed_by_nobody(
    database: str, spools: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with nats_server(sync_always=False) as nats, projecting(nats, database) as projected:
        await publish_everything(projected.client, tenants=("acme", "-", "other"), months=4)
        async with Recorder(options(nats, spools)) as recorder:
            for n in range(3_000):
                recorder.record(failed(n, "before"))
            await stack.drained(recorder)
            await projected.caught_up()
            before, connections = await projected.rows(PUBLIC), await projected.rows(PROJECTORS)
            load = Load(recorder, database)
            async with load.running():
                await until(lambda: load.answers["decisions.counts"] > 2, "readers have prepared what they ask")
                done = await rebuild(projected.client, database)
                at_swap = load.answers.copy()
                await until(lambda: load.answers["tasks.migrations"] > at_swap["tasks.migrations"] + 2, "and go on")
                assert await generation(projected) == done.generation == 2
                missed = load.recorded
                await until(lambda: load.recorded > missed + 500)
                folded = await rolled_back(projected.client, database)
                await until(lambda: load.answers["tasks.migrations"] > at_swap["tasks.migrations"] + 4)
            assert await projected.rows(PROJECTORS) == connections  # its prepared statements did not fail
            assert done.differing == ()
            assert folded >= 500
            assert (done.writes_waited_s, done.reads_waited_s) < (5, 5)
            with capsys.disabled():
                print(
                    f"\n  swap under load: writes waited {done.writes_waited_s * 1e3:.0f} ms, reads"
                    f" {done.reads_waited_s * 1e3:.0f} ms; slowest query {load.slowest_s * 1e3:.0f} ms;"
                    f" {done.events_per_s:,.0f} events/s rebuilt beside {load.recorded} recorded"
                )
            await recorder.record(failed(0)).reached(Ack.PROJECTED)
            digest = await projected.digests_agree()
            assert digest.rows["circuit_breaker_events"] > 3_000 + load.recorded
            assert digest.deadletters == 0
            gaps = "SELECT * FROM publisher_gaps WHERE publisher = $1"
            assert await projected.rows(gaps, recorder.publisher) == []
            assert await generation(projected) == 3
            # Rolled back: the very tables that there were.
            assert {row["oid"] for row in before} <= {row["oid"] for row in await projected.rows(PUBLIC)}
            assert await rolled_back(projected.client, database) < 5_000  # and forth again
            await projected.digests_agree()
            assert (await rebuild(projected.client, database)).differing == ()
            assert (await projected.digests_agree()).tables == digest.tables


async def test_several_processes_fold_a_long_stream_to_the_same_tables(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild_module, "WORTH_WORKERS", 0)
    monkeypatch.setattr(rebuild_module, "how_many", lambda: 2)
    monkeypatch.setattr("relight.engine.tables.refolding.BATCH_EVENTS", 30)
    async with nats_server(sync_always=False) as nats, projecting(nats, database) as projected:
        await publish_everything(projected.client, tenants=("acme", "-", "other"), months=3)
        await projected.client.jetstream().publish("ev.eu.breakers.acme.failed", b"no event")
        before = await projected.digests_agree()
        connect = partial(connect_session, database, role=stack.ROLE)
        done = await rebuild(projected.client, database, connect=connect)
        assert (done.differing, done.dead_letters, done.events) == ((), 1, before.seq)
        assert (await projected.digests_agree()).tables == before.tables


async def test_a_reader_that_takes_long_holds_up_the_swap_and_no_other_reader(database: str) -> None:
    async with nats_server() as nats, projecting(nats, database) as projected:
        await publish_everything(projected.client)
        await projected.caught_up()
        slow = await asyncpg.connect(database)
        held = slow.transaction()
        await held.start()
        await slow.fetch("SELECT FROM task_assignments LIMIT 1")
        rebuilding = asyncio.create_task(rebuild(projected.client, database))
        watching = await asyncpg.connect(database)
        await until(
            lambda: watching.fetchval("SELECT true FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'")
        )
        slowest_s = 0.0
        async with await open_pool(database, PoolOptions(size=2)) as pool:
            for _ in range(30):
                began = time.monotonic()
                await run(pool, "tasks.by_status", tenant="acme", limit=MAX_LIMIT)
                slowest_s = max(slowest_s, time.monotonic() - began)
                await asyncio.sleep(0.05)
        assert not rebuilding.done()
        assert slowest_s < 4
        await held.rollback()
        assert (await rebuilding).generation == 2
        await slow.close()
        await watching.close()
