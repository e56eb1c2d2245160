"""Retention: what is past its limit goes if it stands elsewhere, all else stays, and no rebuild brings it back."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import stack
from everything import everything, publish_everything
from rebuilt import rebuild, rolled_back, sessions
from stack import Projecting, nats_server, projecting

from relight.engine.errors import RebuildRefused, SettingsError
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.deadletters import count_open
from relight.engine.tables.digest import digest_postgres
from relight.engine.tables.exclusive import alone
from relight.engine.tables.keeping import Keeping, first_id, histories, parse_keep
from relight.engine.tables.marks import load_marks
from relight.engine.tables.retention import Retention, Trimmed, on_stream
from relight.engine.tables.retention_plan import plan
from relight.projections.catalog import projections

APRIL = datetime(2026, 4, 1, tzinfo=UTC)
TABLE = "circuit_breaker_events"
LIMIT = Keeping(default=timedelta(days=40))
"""Of what `everything` tells of March and the months before, as of April, only March stays."""


async def apply(projected: Projecting, database: str, keeping: Keeping = LIMIT) -> Trimmed:
    session = await connect_session(database, role=stack.ROLE)
    try:
        return await Retention(session, [on_stream(projected.client)], keeping, now=APRIL).run()
    finally:
        await session.close()


async def tenants(projected: Projecting, table: str = TABLE) -> dict[str, int]:
    rows = await projected.rows(f"SELECT tenant, count(*) AS n FROM {table} GROUP BY 1 ORDER BY 1")
    return {row["tenant"]: row["n"] for row in rows}


async def oldest(projected: Projecting) -> str:
    return str(await projected.session.fetchval(f"SELECT min(event_id::text) FROM {TABLE}"))


async def test_rows_past_their_limit_go_and_their_months_with_them(database: str) -> None:
    async with nats_server() as nats, projecting(nats, database) as projected:
        await publish_everything(projected.client, tenants=("acme", "-"), months=4)
        before = await projected.digests_agree()
        done = await apply(projected, database)
        assert {rows.table for rows in done.rows} == set(histories())
        assert all(rows.trimmed == rows.due > 0 and rows.kept_nowhere_else == 0 for rows in done.rows)
        assert len(done.dropped_partitions) >= 2 * len(histories())
        assert await oldest(projected) >= first_id(APRIL - timedelta(days=40))
        after = await digest_postgres(projected.session)
        for name, rows in after.rows.items():
            assert rows == before.rows[name] // 4 if name in histories() else after.tables[name] == before.tables[name]
        assert {mark.trimmed_rows for mark in after.trimmed} == {rows.trimmed for rows in done.rows}
        assert {mark.trimmed_by for mark in after.trimmed} == {"postgres"}
        generation = await projected.session.fetchval("SELECT generation FROM projection_positions")
        assert generation > 1, "answers at this position are others now"
        again = await apply(projected, database)
        assert (again.messages, sum(rows.due for rows in again.rows)) == (0, 0)
        await publish_everything(projected.client, tenants=("late",), months=4)  # into months that were dropped
        await projected.caught_up()
        assert await count_open(projected.session) == 0
        assert len(await tenants(projected)) == 3


async def test_a_row_whose_event_is_not_on_the_stream_is_kept_and_counted(database: str) -> None:
    async with nats_server() as nats, projecting(nats, database) as projected:
        old = everything("acme", months_ago=3)
        for subject, body in [*old, *everything("other", months_ago=3), *everything("acme", months_ago=3, copy=1)]:
            await projected.client.jetstream().publish(subject, body)
        await projected.caught_up()
        before = await tenants(projected)
        await projected.client.jetstream().purge_stream("EV", seq=len(old) + 1)
        done = await apply(projected, database)
        [acme, other] = [rows for rows in done.rows if rows.table == TABLE]
        assert acme.due == before["acme"] == acme.trimmed * 2
        assert acme.kept_nowhere_else == acme.trimmed
        assert (other.due, other.trimmed, other.kept_nowhere_else) == (before["other"], before["other"], 0)
        assert await tenants(projected) == {"acme": acme.kept_nowhere_else}
        assert f"{TABLE}_2025_12" not in done.dropped_partitions
        held = await digest_postgres(projected.session)
        await rebuild(projected.client, database, accept_difference=True)  # state tables: their first events are gone
        after = await digest_postgres(projected.session)
        assert {name: after.tables[name] for name in histories()} == {name: held.tables[name] for name in histories()}


async def test_neither_a_rebuild_nor_a_rollback_brings_back_what_was_trimmed(database: str) -> None:
    async with nats_server() as nats, projecting(nats, database) as projected:
        await publish_everything(projected.client, tenants=("acme", "other"), months=4)
        await projected.caught_up()
        await rebuild(projected.client, database)  # the tables that it replaces have all rows
        await apply(projected, database, Keeping(default=timedelta(days=40), only_tenant="acme"))
        trimmed = await digest_postgres(projected.session)
        assert (await rolled_back(projected.client, database)) == 0
        assert (await digest_postgres(projected.session)).tables == trimmed.tables
        subject, body = everything("acme", months_ago=2, copy=9)[0]
        await projected.client.jetstream().publish(subject, body)  # older than the mark, yet never trimmed
        await projected.caught_up()
        late = await digest_postgres(projected.session)
        done = await rebuild(projected.client, database)
        assert done.differing == ()
        assert (await digest_postgres(projected.session)).tables == late.tables != trimmed.tables


async def test_each_tenant_and_table_has_its_own_limit(database: str, tmp_path: Path) -> None:
    policy = tmp_path / "retention.toml"
    policy.write_text(
        'default = "70d"\ndecision_audit_logs = "forever"\n'
        '[tenants.acme]\ndefault = "40d"\n[tenants.other]\ncircuit_breaker_events = "2y"\n'
    )
    async with nats_server() as nats, projecting(nats, database) as projected:
        await publish_everything(projected.client, tenants=("acme", "other", "-"), months=4)
        await projected.caught_up()
        [each] = set((await tenants(projected)).values())
        await apply(projected, database, Keeping.from_file(policy))
        assert await tenants(projected) == {"acme": each // 4, "other": each, "-": each // 2}
        logs = await tenants(projected, "decision_audit_logs")
        assert logs["acme"] * 4 == logs["other"] == logs["-"]
        await apply(projected, database, Keeping.from_file(policy, tenant="other", table="failover_events"))
        assert (await tenants(projected))["other"] == each


async def test_the_plan_says_what_would_go_and_from_where_it_could_come_back(database: str) -> None:
    async with nats_server() as nats, projecting(nats, database) as projected:
        events = await publish_everything(projected.client, months=4)
        before = await projected.digests_agree()
        found = await plan(projected.session, projected.client, LIMIT, now=APRIL)
        assert (await digest_postgres(projected.session)).tables == before.tables
        rows = {row.table: row for row in found.rows}[TABLE]
        assert rows.due == rows.rows * 3 // 4
        assert rows.oldest_at < APRIL - timedelta(days=100) < APRIL - timedelta(days=40) < rows.oldest_kept_at  # type: ignore[operator]
        assert 0 < rows.due_bytes < rows.bytes
        stream = found.stream
        assert (stream.first_seq, stream.last_seq, stream.from_the_beginning) == (1, events, True)
        assert (stream.position_agrees, stream.anchors_agree) == (True, stream.anchors)
        assert stream.first_at is not None
        assert abs(stream.first_at - datetime.now(UTC)) < timedelta(minutes=5)
        await projected.client.jetstream().purge_stream("EV", seq=10)
        later = await plan(projected.session, projected.client, Keeping(), now=APRIL)
        assert (later.stream.first_seq, later.stream.from_the_beginning) == (10, False)
        assert {row.due for row in later.rows} == {0}


async def test_retention_and_rebuild_exclude_each_other(database: str) -> None:
    async with nats_server() as nats, projecting(nats, database) as projected:
        async with sessions(database) as (keeper, _), alone(keeper):
            with pytest.raises(RebuildRefused, match="rebuild of the test, one"):
                await apply(projected, database)


@pytest.mark.parametrize("role", ["relight_reader", "relight_operator", "relight_projector"])
async def test_nobody_else_can_trim_and_the_owner_sees_only_the_tenant_that_it_names(database: str, role: str) -> None:
    async with nats_server() as nats, projecting(nats, database) as projected:
        await publish_everything(projected.client, tenants=("acme", "other"))
        await projected.caught_up()
        admin = await asyncpg.connect(database)
        await admin.execute(f"SET ROLE {role}; SET relight.tenant = 'acme'; SET relight.trimming = 'acme'")
        for statement in (f"DELETE FROM {TABLE}", "DELETE FROM retention_marks", "INSERT INTO retention_marks SELECT"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await admin.execute(statement)
        if role != "relight_projector":
            assert {row["tenant"] for row in await admin.fetch(f"SELECT tenant FROM {TABLE}")} == {"acme"}
        await admin.execute("SET ROLE relight_owner")
        assert {row["tenant"] for row in await admin.fetch(f"SELECT tenant FROM {TABLE}")} == {"acme"}
        assert await admin.execute(f"UPDATE {TABLE} SET region = 'x'") == "UPDATE 0"
        await admin.execute("SET relight.trimming = ''")
        assert await admin.execute(f"DELETE FROM {TABLE}") == "DELETE 0"
        await admin.close()


async def test_a_retention_that_ends_in_the_middle_has_marked_what_it_trimmed(database: str) -> None:
    async with nats_server() as nats, projecting(nats, database) as projected:
        await publish_everything(projected.client, months=4)
        before = await projected.digests_agree()

        class Ended(Exception):
            pass

        async def ends_early() -> Any:
            async for batch, end in on_stream(projected.client)():
                yield [message for message in batch if message.seq <= end // 2], end
                if batch[-1].seq > end // 2:
                    raise Ended

        session = await connect_session(database, role=stack.ROLE)
        with pytest.raises(Ended):
            await Retention(session, [ends_early], LIMIT, now=APRIL).run()
        marked = sum(mark.trimmed_rows for mark in await load_marks(session))
        held = await digest_postgres(session)
        assert 0 < marked == sum(before.rows.values()) - sum(held.rows.values())
        assert (await rebuild(projected.client, database)).differing == ()
        assert (await digest_postgres(session)).tables == held.tables
        await session.close()


async def test_reads_and_writes_go_on_while_rows_are_trimmed(database: str) -> None:
    async with nats_server() as nats, projecting(nats, database) as projected:
        await publish_everything(projected.client, months=4)
        await projected.caught_up()
        trimming = asyncio.create_task(apply(projected, database))
        while not trimming.done():
            await publish_everything(projected.client, tenants=("more",))
            assert await tenants(projected)
        await trimming
        await projected.caught_up()
        assert (await tenants(projected))["more"] > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("default = 90", "90 is no time to keep rows; write 36h, 90d"),
        ('default = "0d"', "'0d' is no time"),
        ('default = "90 days"', "no time"),
        ('nothing_here = "90d"', "no history table nothing_here; there is circuit_breaker_events"),
        ('circuit_breaker_states = "90d"', "no history table circuit_breaker_states"),
        ('[tenants]\nacme = "90d"', r"tenants are sections, as in \[tenants.acme\]"),
        ('[tenants.acme]\ndefault = "x"', "tenant acme, default: 'x' is no time"),
        ("default =", "cannot be read"),
    ],
)
def test_a_wrong_policy_is_refused_and_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message):
        Keeping.from_file(path)


def test_the_narrower_rule_wins_and_forever_is_for_good() -> None:
    day, week, year = (parse_keep(text, "") for text in ("1d", "1w", "1y"))
    keeping = Keeping(
        default=year, tables={TABLE: week}, tenants={"a": Keeping(default=day), "b": Keeping(tables={TABLE: None})}
    )
    assert [keeping.of(TABLE, tenant) for tenant in "abc"] == [day, None, week]
    assert [keeping.of("failover_events", tenant) for tenant in "abc"] == [day, year, year]
    assert (keeping.longest(TABLE), keeping.longest("failover_events")) == (None, year)
    assert Keeping().of(TABLE, "a") is None
    assert len(projections()) == len(histories()) == 10
