"""Partitioned history tables: months come into being with their events, closed to all except through their table."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
import stack
from everything import everything, publish_everything
from folding import event_id
from stack import nats_server, projecting

from relight.engine.log.reader import Message
from relight.engine.tables.connecting import Session, connect_session
from relight.engine.tables.deadletters import count_open
from relight.engine.tables.folding import Folded
from relight.engine.tables.partitions import Partitions, make_live
from relight.projections.base import History
from relight.projections.catalog import tables

HISTORIES = [table for table in tables() if isinstance(table, History)]
MAY_2023_MS = 1_683_000_000_000
MAY_2019_MS = 1_557_000_000_000
ENSURE = "SELECT relight_ensure_partitions($1, $2)"
LEAVES = "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'circuit_breaker_events'::regclass"


async def months(connection: Any) -> set[str]:
    return {row["name"].removeprefix("circuit_breaker_events_") for row in await connection.fetch(LEAVES)}


async def test_events_of_any_month_find_their_partition_and_the_digests_agree(database: str) -> None:
    async with nats_server() as nats, projecting(nats, database) as projected:
        before = await months(projected.session)
        assert len(before) == 3  # the first one, this month and the next
        for n, ms in enumerate((MAY_2023_MS, MAY_2019_MS)):
            subject, body = stack.encoded(stack.failed(n), id=event_id(ms), time=datetime.now(UTC), publisher=f"p{n}")
            await projected.client.jetstream().publish(subject, body)
        await publish_everything(projected.client, months=4)
        digest = await projected.digests_agree()
        assert all(digest.rows.values())
        assert digest.deadletters == 0
        new = await months(projected.session) - before
        assert new == {"2023_05", "2025_12", "2026_01", "2026_02", "2026_03"}


async def test_every_history_table_is_partitioned_by_event_id_and_has_a_first_partition(database: str) -> None:
    connection = await asyncpg.connect(database)
    for table in HISTORIES:
        key = await connection.fetchval("SELECT pg_get_partkeydef($1::text::regclass)", table.name)
        assert key == "RANGE (event_id)"
        low = await connection.fetch("SELECT low FROM relight_partitions($1::text::regclass)", table.name)
        assert low[0]["low"] is None
    await connection.close()


async def test_ids_before_2020_share_one_partition_however_many_months_they_name(database: str) -> None:
    connection = await asyncpg.connect(database)
    old = [event_id(month * 31 * 86_400_000) for month in range(588)]
    before = await months(connection)
    assert await connection.fetchval(ENSURE, "circuit_breaker_events", old) == 0
    assert await months(connection) == before
    await connection.close()


async def test_sessions_that_need_the_same_months_at_once_make_each_of_them_once(database: str) -> None:
    ids = [event_id(MAY_2023_MS + n * 31 * 86_400_000) for n in range(6)]
    sessions = [await connect_session(database, role=stack.ROLE) for _ in range(6)]
    made = await asyncio.gather(*(session.fetchval(ENSURE, "failover_events", ids) for session in sessions))
    assert sum(made) == 6
    for session in sessions:
        await session.close()


async def test_reads_and_writes_at_work_do_not_hold_up_a_new_partition(database: str) -> None:
    reading, writing = await asyncpg.connect(database), await asyncpg.connect(database)
    session = await connect_session(database, role=stack.ROLE)
    async with reading.transaction(), writing.transaction():
        await reading.fetch("SELECT * FROM circuit_breaker_events")
        await writing.execute(
            "INSERT INTO circuit_breaker_events VALUES ('a', $1, 'eu', now(), 's', 'failure', '{}')",
            event_id(MAY_2019_MS),
        )
        async with asyncio.timeout(5):
            assert await session.fetchval(ENSURE, "circuit_breaker_events", [event_id(MAY_2023_MS)]) == 1
    for connection in (reading, writing, session):
        await connection.close()


async def test_months_that_are_known_are_not_asked_about_again(database: str) -> None:
    asked: list[str] = []

    async def make(session: Session, history: str, event_ids: Sequence[str]) -> None:
        asked.append(history)
        await make_live(session, history, event_ids)

    folded = Folded()
    folded.fold(Message(n, 2**61, *message) for n, message in enumerate(everything(), 1))
    assert not folded.dead_letters
    session = await connect_session(database, role=stack.ROLE)
    partitions = Partitions(make)
    for _ in range(3):
        await partitions.ensure(session, folded.tables)
    assert sorted(asked) == [table.name for table in HISTORIES]
    partitions.forget()
    await partitions.ensure(session, folded.tables)
    assert len(asked) == 2 * len(HISTORIES)
    await session.close()


async def test_a_partition_that_was_dropped_is_made_again_and_no_event_is_a_dead_letter(database: str) -> None:
    admin = await asyncpg.connect(database)
    async with nats_server() as nats, projecting(nats, database) as projected:
        await publish_everything(projected.client)
        await projected.caught_up()
        for (name,) in await admin.fetch(
            "SELECT oid::regclass::text FROM pg_class WHERE relname ~ '_2026_03$' AND relkind = 'r'"
        ):
            await admin.execute(f"DROP TABLE {name}")
        await publish_everything(projected.client, tenants=("other",))
        await projected.caught_up()
        assert await count_open(projected.session) == 0
        rows = await projected.rows("SELECT DISTINCT tenant FROM circuit_breaker_events")
        assert rows == [{"tenant": "other"}]
    await admin.close()


@pytest.mark.parametrize(
    "table",
    [
        "projection_positions",
        "circuit_breaker_states",
        "pg_class",
        "public.circuit_breaker_events",
        "x; DROP TABLE y",
        "",
    ],
)
async def test_partitions_are_made_of_history_tables_alone(database: str, table: str) -> None:
    session = await connect_session(database, role=stack.ROLE)
    with pytest.raises(asyncpg.UndefinedTableError, match="is no history table"):
        await session.execute(ENSURE, table, [event_id(MAY_2023_MS)])
    await session.close()


@pytest.mark.parametrize("role", ["relight_reader", "relight_operator"])
async def test_a_reader_makes_no_partitions(database: str, role: str) -> None:
    session = await connect_session(database, role=role)
    for statement in (
        f"SELECT relight_ensure_partitions('circuit_breaker_events', ARRAY['{event_id(MAY_2023_MS)}'::uuid])",
        f"SELECT relight_add_partitions('circuit_breaker_events', ARRAY['{event_id(MAY_2023_MS)}'::uuid])",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await session.execute(statement)
    await session.close()


async def test_a_partition_is_closed_to_every_role_and_its_owner_sees_no_row(
    database: str, fill: Callable[..., Awaitable[None]]
) -> None:
    admin = await asyncpg.connect(database)
    for table in HISTORIES:
        await fill(admin, table, 60, "(ARRAY['A', 'B', '-'])[1 + n % 3]")
    leaves = [
        name
        for (name,) in await admin.fetch(
            "SELECT oid::regclass::text FROM pg_class WHERE relispartition AND relkind = 'r'"
        )
    ]
    assert len(leaves) >= 4 * len(HISTORIES)
    for role in ("relight_reader", "relight_operator", "relight_projector"):
        await admin.execute(f"SET ROLE {role}; SET relight.tenant = '-'")
        for leaf in leaves:
            for statement in (f"SELECT FROM {leaf}", f"DELETE FROM {leaf}", f"DROP TABLE {leaf}"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await admin.execute(statement)
    await admin.execute("SET ROLE relight_owner")
    for leaf in leaves:
        assert await admin.fetch(f"SELECT FROM {leaf}") == []
    await admin.execute("RESET ROLE")
    unlike = await admin.fetch(
        "SELECT oid::regclass::text FROM pg_class AS c WHERE relispartition AND relkind = 'r' AND ("
        " NOT relrowsecurity OR NOT relforcerowsecurity OR relowner <> 'relight_owner'::regrole"
        " OR EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid)"
        " OR EXISTS (SELECT FROM aclexplode(relacl) WHERE grantee <> c.relowner))"
    )
    assert unlike == []
    await admin.close()
