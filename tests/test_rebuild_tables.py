"""The tables that a rebuild makes: closed, owned and cut into months as the live ones are."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from everything import publish_everything
from rebuilt import rebuild, rolled_back, sessions
from stack import connected, nats_server, projecting
from test_migrate import connected as migrated
from test_migrate import make_database

from relight.engine.clock import Clock
from relight.engine.errors import RebuildRefused
from relight.engine.tables.keeping import Keeping
from relight.engine.tables.migrate import migrate
from relight.engine.tables.pools import act_as
from relight.engine.tables.retention import Retention, on_stream
from relight.projections.catalog import tables


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


async def test_a_view_that_would_go_on_reading_the_old_table_is_named(database: str) -> None:
    admin = await asyncpg.connect(database)
    await admin.execute("CREATE VIEW open_breakers AS SELECT * FROM circuit_breaker_states WHERE state = 'open'")
    await admin.close()
    async with nats_server() as nats, connected(nats) as client:
        with pytest.raises(RebuildRefused, match="open_breakers reads these tables"):
            await rebuild(client, database)


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
