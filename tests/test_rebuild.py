"""Rebuild: nobody notices it, nothing is lost by it, and what it cannot vouch for it does not swap in."""

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
import stack
from everything import everything, publish_everything
from nats.aio.client import Client
from stack import Projecting, connected, failed, nats_server, options, projecting, until
from test_migrate import connected as migrated
from test_migrate import make_database

from relight.engine.clock import Clock
from relight.engine.errors import RebuildRefused
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.tables import rebuild as rebuild_module
from relight.engine.tables.connecting import Session, connect_session
from relight.engine.tables.deadletters import count_open, list_dead_letters
from relight.engine.tables.keeping import Keeping
from relight.engine.tables.migrate import migrate
from relight.engine.tables.pools import PoolOptions, act_as, open_pool
from relight.engine.tables.queries import parse, run
from relight.engine.tables.rebuild import Rebuild, Rebuilt
from relight.engine.tables.retention import Retention, on_stream
from relight.engine.tables.rollback import drop_previous, roll_back
from relight.projections import breakers
from relight.projections.base import Projection
from relight.projections.catalog import projections, queries, tables
from relight.projections.query import MAX_LIMIT

OF_SET = "SELECT count(*) FROM pg_class WHERE relnamespace = $1::text::regnamespace AND relkind IN ('r', 'p')"
PUBLIC = """
SELECT relname::text AS name, oid FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1
"""

PROJECTORS = """
SELECT pid, backend_start FROM pg_stat_activity
WHERE application_name = 'relight-projector' AND datname = current_database() ORDER BY 1
"""
ASKED: dict[type, Any] = {str: "api", int: 1, datetime: datetime(2026, 3, 1, tzinfo=UTC)}


@asynccontextmanager
async def sessions(database: str) -> AsyncIterator[tuple[Session, Session]]:
    keeper, builder = [
        await connect_session(database, role=stack.ROLE, name=f"rebuild of the test, {name}") for name in ("one", "two")
    ]
    try:
        yield keeper, builder
    finally:
        for session in (keeper, builder):
            await session.close(timeout=2)


async def rebuild(client: Client, database: str, *chosen: Projection, **changes: Any) -> Rebuilt:
    async with sessions(database) as (keeper, builder):
        return await Rebuild(client, keeper, builder, chosen or projections(), clock=Clock(), **changes).run()


async def rolled_back(client: Client, database: str) -> int:
    async with sessions(database) as (keeper, builder):
        return (await roll_back(client, keeper, builder, clock=Clock())).events


async def set_size(projected: Projecting, name: str) -> int:
    return int(await projected.session.fetchval(OF_SET, f"public_{name}"))


async def generation(projected: Projecting) -> int:
    return int(await projected.session.fetchval("SELECT generation FROM projection_positions"))


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


async def test_rebuilt_tables_are_closed_as_the_live_ones_were(
    database: str, fill: Callable[..., Awaitable[None]]
) -> None:
    admin = await asyncpg.connect(database)
    await admin.execute("CREATE ROLE test_grafana; GRANT SELECT ON circuit_breaker_events TO test_grafana")
    await admin.execute(
        "CREATE POLICY test_sees ON circuit_breaker_events FOR SELECT TO test_grafana USING (tenant = 'acme')"
    )
    await admin.execute("REVOKE SELECT ON fault_domains FROM relight_operator")
    await admin.execute("ALTER TABLE task_assignments SET (fillfactor = 70)")
    try:
        async with nats_server() as nats, projecting(nats, database) as projected:
            await publish_everything(projected.client, tenants=("acme", "-", "other"))
            await projected.caught_up()
            shapes = await _shapes(admin)
            await rebuild(projected.client, database)
            assert await _shapes(admin) == shapes
            for role, tenant, sees in (
                ("relight_reader", "acme", {"acme", "-"}),
                ("relight_reader", "", set()),
                ("relight_operator", "-", {"acme", "-", "other"}),
                ("relight_owner", "acme", set()),
            ):
                async with admin.transaction():
                    await act_as(admin, role, tenant)  # type: ignore[arg-type]
                    for table in tables():
                        if (role, table.name) != ("relight_operator", "fault_domains"):
                            rows = await admin.fetch(f"SELECT DISTINCT tenant FROM {table.name}")
                            assert {row["tenant"] for row in rows} == sees, table.name
            for schema in ("public_shadow", "public_previous"):
                for role in ("relight_reader", "relight_operator"):
                    async with admin.transaction():
                        await act_as(admin, role, "acme")  # type: ignore[arg-type]
                        with pytest.raises(asyncpg.InsufficientPrivilegeError):
                            await admin.execute(f"SELECT FROM {schema}.circuit_breaker_states")
    finally:
        await admin.execute("DROP OWNED BY test_grafana; DROP ROLE test_grafana")
        await admin.close()


async def _shapes(admin: Any) -> list[Any]:
    """What stands in the catalogue of tables, partitions, indexes and policies, by name."""
    return [
        await admin.fetch(query)
        for query in (
            "SELECT relname, relkind, relrowsecurity, relforcerowsecurity, reloptions, relowner::regrole::text,"
            " ARRAY(SELECT unnest(relacl)::text ORDER BY 1), obj_description(oid), pg_get_expr(relpartbound, oid)"
            " FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'I') ORDER BY 1",
            "SELECT tablename, policyname, permissive, roles::text, cmd, qual, with_check FROM pg_policies"
            " WHERE schemaname = 'public' ORDER BY 1, 2",
            "SELECT relname, attname, format_type(atttypid, atttypmod), attnotnull, col_description(c.oid, attnum)"
            " FROM pg_class AS c JOIN pg_attribute ON attrelid = c.oid WHERE relnamespace = 'public'::regnamespace"
            " AND relkind IN ('r', 'p') AND attnum > 0 ORDER BY 1, attnum",
            "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index"
            " JOIN pg_class ON oid = indrelid WHERE relnamespace = 'public'::regnamespace AND NOT relispartition"
            " ORDER BY 1",
        )
    ]


async def test_tables_that_differ_are_not_swapped_in_unless_that_is_asked_for_or_their_projection_changed(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = await asyncpg.connect(database)
    spoil = "UPDATE circuit_breaker_events SET region = 'spoilt'"
    async with nats_server() as nats, projecting(nats, database) as projected:
        await publish_everything(projected.client)
        right = await projected.digests_agree()
        await admin.execute(spoil)
        with pytest.raises(RebuildRefused, match=r"circuit_breaker_events differ .*nothing was swapped.*--accept-diff"):
            await rebuild(projected.client, database)
        assert (await generation(projected), await set_size(projected, "previous")) == (1, 0)
        assert await rebuild(projected.client, database, *[p for p in projections() if p != breakers.projection])
        done = await rebuild(projected.client, database, breakers.projection, accept_difference=True)
        assert (done.differing, done.generation) == (("circuit_breaker_events",), 3)
        assert (await projected.digests_agree()).tables == right.tables
        await admin.execute(spoil)
        newer = Projection(name="breakers", version=2, tables=breakers.projection.tables)
        newer.handlers.update(breakers.projection.handlers)
        monkeypatch.setattr("relight.engine.tables.folding.projection_of", lambda type: newer)
        assert (await rebuild(projected.client, database, newer)).differing == ("circuit_breaker_events",)
        assert await projected.rows("SELECT version FROM projection_versions WHERE projection = 'breakers'") == [
            {"version": 2}
        ]
        monkeypatch.undo()
        await projected.digests_agree()
    await admin.close()


async def test_a_second_rebuild_or_rollback_is_refused_and_told_who_runs_the_first(database: str) -> None:
    async with nats_server() as nats, projecting(nats, database) as projected:
        await publish_everything(projected.client)
        await projected.caught_up()
        with pytest.raises(RebuildRefused, match="nothing to roll back to"):
            await rolled_back(projected.client, database)
        refused: list[str] = []

        async def refuse() -> None:
            async with sessions(database) as (keeper, builder):
                for second in (
                    Rebuild(projected.client, keeper, builder, projections(), clock=Clock()).run(),
                    roll_back(projected.client, keeper, builder, clock=Clock()),
                    drop_previous(keeper),
                ):
                    with pytest.raises(RebuildRefused) as raised:
                        await second
                    refused.append(str(raised.value))

        async with sessions(database) as (keeper, builder):
            first = Rebuild(projected.client, keeper, builder, projections(), clock=Clock())
            once, first._once = first._once, None  # type: ignore[method-assign,assignment]

            async def interrupted(sets: Any) -> Rebuilt:
                await refuse()
                return await once(sets)

            first._once = interrupted  # type: ignore[method-assign]
            await first.run()
        assert len(refused) == 3
        assert all("rebuild of the test, one" in said for said in refused)
        async with sessions(database) as (keeper, _):
            assert await drop_previous(keeper) == 20
        assert await set_size(projected, "previous") == 0


async def test_a_rebuild_that_is_killed_leaves_the_live_tables_and_the_next_one_begins_anew(database: str) -> None:
    async with nats_server(sync_always=False) as nats, projecting(nats, database) as projected:
        for copy in range(6):
            for subject, body in everything(copy=copy):
                await projected.client.jetstream().publish(subject, body)
        before = await projected.digests_agree()
        oids = await projected.rows(PUBLIC)
        command = [sys.executable, str(Path(__file__).with_name("rebuilding_child.py")), nats.url, database, "20"]
        child = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        assert child.stdout is not None
        for _ in range(5):
            assert await child.stdout.readline(), "it folds"
        workers = psutil.Process(child.pid).children(recursive=True)
        assert len(workers) >= 2
        child.kill()
        await child.wait()
        await until(lambda: not any(worker.is_running() for worker in workers), "its processes end with it")
        assert await set_size(projected, "shadow") > 20
        assert await projected.rows(PUBLIC) == oids
        assert (await projected.digests_agree()).tables == before.tables

        async def again() -> Rebuilt | None:
            try:
                return await rebuild(projected.client, database)
            except RebuildRefused:
                return None  # the killed one's last statement has still to end

        done = await until(again)
        assert (done.differing, done.generation, done.events) == ((), 2, before.seq)
        assert await set_size(projected, "shadow") == 0
        assert (await projected.digests_agree()).tables == before.tables


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


async def test_dead_letters_that_fold_now_are_resolved_and_those_met_are_kept(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(event: Any) -> Any:
        raise ZeroDivisionError("bug")

    async with nats_server() as nats, projecting(nats, database) as projected:
        with monkeypatch.context() as patched:
            patched.setitem(breakers.projection.handlers, "breakers.failed", raises)
            await publish_everything(projected.client)
            await projected.client.jetstream().publish("ev.eu.breakers.acme.failed", b"no event")
            await projected.caught_up()
            assert await count_open(projected.session) == 2
        done = await rebuild(projected.client, database)
        assert (done.differing, done.dead_letters_resolved, done.dead_letters) == ((), 1, 1)
        [left] = await list_dead_letters(projected.session)
        assert left.reason.value == "not_an_event"
        await projected.digests_agree()
        with monkeypatch.context() as patched:  # what folded once and does not now is a difference
            patched.setitem(breakers.projection.handlers, "breakers.failed", raises)
            with pytest.raises(RebuildRefused, match="circuit_breaker_events, circuit_breaker_states differ"):
                await rebuild(projected.client, database)
            await rebuild(projected.client, database, accept_difference=True)
            assert {letter.reason.value for letter in await list_dead_letters(projected.session)} == {"not_an_event"}


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


async def test_a_view_that_would_go_on_reading_the_old_table_is_named(database: str) -> None:
    admin = await asyncpg.connect(database)
    await admin.execute("CREATE VIEW open_breakers AS SELECT * FROM circuit_breaker_states WHERE state = 'open'")
    await admin.close()
    async with nats_server() as nats, connected(nats) as client:
        with pytest.raises(RebuildRefused, match="open_breakers reads these tables"):
            await rebuild(client, database)


async def test_a_stream_put_back_to_an_older_copy_is_read_again_once_the_projector_has_noticed(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild_module, "AGAIN_S", 0.1)
    async with nats_server(sync_always=False) as nats:
        async with connected(nats) as client:
            await publish_everything(client)
        await nats.stop()
        copy = nats.folder / "copy"
        shutil.copytree(nats.store, copy)
        await nats.start()
        async with projecting(nats, database) as projected:
            await publish_everything(projected.client, tenants=("lost",))
            await projected.caught_up()
        await nats.kill()
        shutil.rmtree(nats.store)
        shutil.copytree(copy, nats.store)
        await nats.start()
        async with connected(nats) as client:
            await publish_everything(client, tenants=("new",))
            monkeypatch.setattr(rebuild_module, "STARTS", 2)
            with pytest.raises(RebuildRefused, match="no projector reads it again"):
                await rebuild(client, database)
            monkeypatch.setattr(rebuild_module, "STARTS", 100)
            rebuilding = asyncio.create_task(rebuild(client, database, accept_difference=True))
            async with projecting(nats, database) as projected:
                done = await rebuilding
                assert len(done.differing) == 20  # what was lost was projected before: only the old tables have it
                await projected.digests_agree()


async def test_a_large_stream_that_has_a_migrated_first_partition_falls_into_months(database: str) -> None:
    admin = await asyncpg.connect(database)
    for table in (
        "circuit_breaker_events",
        "decision_audit_logs",
    ):  # as a table that had rows before it was partitioned
        await admin.execute(
            f"ALTER TABLE {table} DETACH PARTITION {table}_first;"
            f"ALTER TABLE {table} ATTACH PARTITION {table}_first FOR VALUES FROM (MINVALUE)"
            f" TO ('{await admin.fetchval('SELECT relight_first_id($1)', stack_month())}')"
        )
    async with nats_server() as nats, projecting(nats, database) as projected:
        await publish_everything(projected.client, months=4)
        await projected.digests_agree()
        parts = "SELECT count(*) FROM relight_partitions('circuit_breaker_events')"
        assert await admin.fetchval(parts) == 3
        assert (await rebuild(projected.client, database)).differing == ()
        assert await admin.fetchval(parts) == 7
        await projected.digests_agree()
    await admin.close()


def stack_month() -> Any:
    now = Clock().now()
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0, tzinfo=None)


async def test_the_databases_owner_rebuilds_rolls_back_and_trims_without_being_a_superuser(server: str) -> None:
    url = await make_database(server, "test_rebuilt", "test_owner")
    async with migrated(url) as connection:
        await migrate(connection)
    async with nats_server() as nats, projecting(nats, url) as projected:
        await publish_everything(projected.client, tenants=("acme", "-"), months=3)
        before = await projected.digests_agree()
        assert (await rebuild(projected.client, url)).differing == ()
        assert (await projected.digests_agree()).tables == before.tables
        await publish_everything(projected.client, tenants=("other",))
        await projected.caught_up()
        assert await rolled_back(projected.client, url) > 50
        await projected.digests_agree()
        async with sessions(url) as (session, _):
            april = datetime(2026, 4, 1, tzinfo=UTC)
            keeping = Keeping(default=timedelta(days=40))
            done = await Retention(session, [on_stream(projected.client)], keeping, now=april).run()
        assert sum(rows.trimmed for rows in done.rows) > 50
        assert len(done.dropped_partitions) >= 10
        assert (await rebuild(projected.client, url)).differing == ()


def test_the_commands_report_and_refuse() -> None:
    with stack.folder() as home:

        def relight(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "relight.engine.cli.main", *arguments],
                env={"PATH": "", "RELIGHT_HOME": str(home), "RELIGHT_TENANT": "acme"} | settings,
                capture_output=True,
                text=True,
                timeout=90,
            )

        nothing = relight("rebuild", "--rollback")
        assert (nothing.returncode, nothing.stdout) == (1, "")
        assert "there is nothing to roll back to" in nothing.stderr
        assert relight("rebuild", "nothing_like_it").returncode == 2
        assert relight("rebuild", "breakers", "--rollback").returncode == 2
        done = json.loads(relight("rebuild", "--json").stdout)
        assert (len(done["projections"]), len(done["tables"]), done["differing"]) == (10, 20, [])
        assert "in the swap writes waited" in relight("rebuild", "--rollback").stdout
        assert "give --keep 90d, or a policy in RELIGHT_RETENTION_FILE" in relight("retention", "plan").stderr
        planned = json.loads(relight("retention", "plan", "--keep", "90d", "--json").stdout)
        assert planned["rows"] == []
        applied = relight("retention", "apply", "--keep", "90d")
        assert "trimmed 0 rows" in applied.stdout
        assert relight("retention", "apply", "--keep", "90d", "--table", "circuit_breaker_states").returncode == 2
