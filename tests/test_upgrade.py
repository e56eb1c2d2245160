"""Upgrades: no row is lost or copied, and what the release before says to the database goes on working."""

import json
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from everything import everything
from test_migrate import connected, make_database, url_of

from relight.engine.log.reader import Message
from relight.engine.tables.connecting import Session, connect_session
from relight.engine.tables.digest import hash_tables
from relight.engine.tables.folding import Folded
from relight.engine.tables.keeping import first_id
from relight.engine.tables.migrate import Migration, migrate, migrations
from relight.engine.tables.partitions import Partitions
from relight.engine.tables.pools import act_as, open_pool
from relight.engine.tables.store import join_tables
from relight.engine.tables.upserts import columns_of
from relight.projections.base import History, State
from relight.projections.catalog import tables
from relight.projections.tables import Tables

RELEASED = 203
"""The last migration of the release before."""
BEFORE = [migration for migration in migrations() if migration.version <= RELEASED]
SINCE = [migration for migration in migrations() if migration.version > RELEASED]
PREVIOUS: dict[str, Any] = json.loads(Path(__file__).with_name("previous_release.json").read_text())
"""Its statements: every query, the join of every table, and what its engine asks; literals, never made anew."""
NEW = {"breakers.tripped", "breakers.reset", "tasks.released", "faults.suspected", "faults.trusted"}
NEW |= {f"failover.{fact}" for fact in ("fleet_declared", "overridden", "override_ended", "receipt_closed")}
"""Kinds of event that its tables refuse."""
TENANTS = "(ARRAY['A', 'B', '-'])[1 + n % 3]"
ARGUMENTS: dict[str, Any] = {"text": "hot", "bigint": 1, "timestamptz": datetime(2026, 1, 1, 12, tzinfo=UTC)}
COLUMNS = """
SELECT c.relname || '.' || attname AS name, format_type(atttypid, atttypmod) AS type, attnotnull
FROM pg_class AS c JOIN pg_attribute ON attrelid = c.oid
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
AND attnum > 0 AND NOT attisdropped
"""
GRANTS = """
SELECT c.relname || ' ' || a.grantee::regrole::text || ' ' || privilege_type AS name
FROM pg_class AS c, aclexplode(relacl) AS a
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition AND a.grantee <> 0
"""
CONTRACTS = re.compile(
    r"\bDROP\s+(TABLE|COLUMN|VIEW)\b|\bRENAME\s+COLUMN\b|\bALTER\s+COLUMN\b|\bSET\s+NOT\s+NULL\b"
    r"|\bTRUNCATE\b|\bDELETE\s+FROM\b|\bREVOKE\b"
    r"(?!\s+ALL\s+ON\s+(PROCEDURE|FUNCTION)|\s+ALL\s+ON\s+TABLE\s+(%s|\w+\s+FROM\s+PUBLIC))",
    re.IGNORECASE,
)


def released(table: State | History) -> State | History:
    """The table as the release before had it: columns were added since, to states in groups of their own."""
    names = set(PREVIOUS["upserts"][table.name]["columns"])
    if isinstance(table, History):
        return History(name=table.name, columns_={n: column for n, column in table.columns_.items() if n in names})
    groups = {group: members for group, members in table.groups.items() if members.keys() <= names}
    return State(name=table.name, key=table.key, groups=groups, sets=tuple(n for n in table.sets if n in names))


OLD = {table.name: released(table) for table in tables()}


def as_released(told: Tables) -> Tables:
    """The rows as the release before wrote them."""
    found = Tables()
    for table in tables():
        old = OLD[table.name]
        if isinstance(table, State) and isinstance(old, State):
            found.states[old] = told.states[table]
        elif isinstance(table, History) and isinstance(old, History):
            kept = [list(table.columns()).index(name) for name in old.columns()]
            found.histories[old] = {key: tuple(row[n] for n in kept) for key, row in told.histories[table].items()}
    return found


async def digests(session: Session) -> dict[str, tuple[int, str]]:
    """Of the columns that the release before had."""
    async with session.transaction():
        hashes = await hash_tables(session, tuple(OLD.values()))
        return {name: (table_hash.rows, table_hash.hexdigest()) for name, table_hash in hashes.items()}


async def at_release_before(server: str, name: str, *, migrated: bool = False) -> str:
    url = await make_database(server, name, "test_owner")
    async with connected(url) as connection:
        await migrate(connection, known=None if migrated else BEFORE)
    return url


async def test_a_database_with_rows_in_every_table_has_the_same_digests_after_the_upgrade(
    server: str, fill: Callable[..., Awaitable[None]]
) -> None:
    url = await at_release_before(server, "test_upgrade")
    async with connected(url_of(server, "test_upgrade")) as admin:
        for table in OLD.values():
            await fill(admin, table, 60, TENANTS)
        files = await admin.fetch(
            "SELECT pg_relation_filenode(oid) FROM pg_class WHERE relkind = 'r' AND relname ~ '_(events|logs)$'"
        )
        session = await connect_session(url, role="relight_projector")
        before = await digests(session)
        assert all(rows == 60 for rows, _ in before.values())
        async with connected(url) as connection:
            applied = await migrate(connection)
        assert [one.version for one in applied] == [migration.version for migration in SINCE]
        assert await digests(session) == before
        left = "SELECT count(*) FROM pg_class WHERE pg_relation_filenode(oid) = ANY($1) AND relispartition"
        assert await admin.fetchval(left, [file for (file,) in files]) == len(files)  # not copied: the very files
        for table in tables():
            if isinstance(table, History):
                parts = await admin.fetch(
                    "SELECT partition::text, high::text FROM relight_partitions($1::text::regclass)", table.name
                )
                assert parts[0]["partition"] == f"{table.name}_first"
                assert parts[0]["high"] == first_id(datetime(2026, 2, 1, tzinfo=UTC))
                indexes = await admin.fetch(
                    "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = $1::text::regclass", table.name
                )
                assert f"{table.name}_pkey" in {name for (name,) in indexes}
        await session.close()


async def test_new_events_go_on_after_the_upgrade_of_a_database_in_use(server: str) -> None:
    url = await at_release_before(server, "test_in_use")
    session = await connect_session(url, role="relight_projector")
    await session.execute("INSERT INTO projection_positions VALUES ('relight', 1, 77, 'x', now())")
    folded = Folded()
    told = [(subject, body) for subject, body in everything() if json.loads(body)["type"] not in NEW]
    folded.fold(Message(n, 2**61, *message) for n, message in enumerate(told, 1))
    async with session.transaction():
        await join_tables(
            session, as_released(folded.tables)
        )  # as it is prepared here, it is used after the upgrade again
    before = await digests(session)
    async with connected(url) as connection:
        await migrate(connection)
    async with session.transaction():
        await join_tables(session, as_released(folded.tables))
    assert await digests(session) == before
    for months in (0, 4, 60):
        more = Folded()
        more.fold(Message(n, 2**61, *message) for n, message in enumerate(everything("other", months_ago=months), 1))
        async with session.transaction():
            await join_tables(session, more.tables)  # of a projector that makes no partitions
    assert {rows for rows, _ in (await digests(session)).values()} >= {4}
    await Partitions().ensure(session, folded.tables)
    await session.close()


@pytest.mark.parametrize("name", PREVIOUS["queries"])
async def test_a_query_of_the_release_before_is_answered_as_before(upgraded: str, name: str) -> None:
    query = PREVIOUS["queries"][name]
    arguments = [ARGUMENTS[type] for type in query["parameters"].values()]
    async with await open_pool(upgraded) as pool, pool.acquire() as connection, connection.transaction():
        await act_as(connection, "relight_reader", "A")
        rows = await connection.fetch(query["sql"], "A", 100, *arguments)
        assert all(list(row.keys()) == query["columns"] for row in rows)
        assert {row["tenant"] for row in rows if "tenant" in row.keys()} <= {"A", "-"}  # noqa: SIM118 (of a Record)


def test_the_release_before_had_28_queries_and_20_tables() -> None:
    assert (len(PREVIOUS["queries"]), len(PREVIOUS["upserts"])) == (28, 20)


async def test_the_projector_of_the_release_before_goes_on_writing(database: str) -> None:
    folded = Folded()
    now = int(datetime.now(UTC).timestamp() * 1_000)
    told = everything(months_ago=round((1_773_500_000_000 - now) / (31 * 86_400_000)))  # it makes no partitions: today
    folded.fold(Message(n, 2**61, *message) for n, message in enumerate(told, 1))
    assert not folded.dead_letters
    session = await connect_session(database, role="relight_projector")
    for statement in PREVIOUS["engine"]:
        await session.fetch(statement["sql"], *statement["arguments"])
    assert await session.fetchval("SELECT seq FROM projection_positions") == 7
    rows_of = as_released(folded.tables)
    for _ in range(2):
        for table in OLD.values():
            upsert = PREVIOUS["upserts"][table.name]
            assert list(upsert["columns"]) == list(table.columns()), table.name
            await session.execute(upsert["sql"], *columns_of(table, rows_of.rows(table)))
    async with session.transaction():
        for table in tables():
            rows = await session.fetchval(f"SELECT count(*) FROM {table.name}")
            assert rows == len(list(folded.tables.rows(table))) > 0, table.name
    await session.close()


@pytest.mark.parametrize("migration", SINCE, ids=lambda migration: migration.name)
async def test_a_migration_only_adds(server: str, migration: Migration) -> None:
    """Expand first; contract in the release after the one whose readers no longer need it."""
    statements = re.sub(r"--.*", "", migration.sql)
    assert [found[0] for found in CONTRACTS.finditer(statements)] == []
    url = await make_database(server, "test_adds", "test_owner")
    async with connected(url) as connection:
        await migrate(connection, known=[known for known in migrations() if known.version < migration.version])
        columns, grants = await connection.fetch(COLUMNS), await connection.fetch(GRANTS)
        await migrate(connection, known=[known for known in migrations() if known.version <= migration.version])
        kept = {row["name"]: row for row in await connection.fetch(COLUMNS)}
        assert [row for row in columns if kept.get(row["name"]) != row] == []
        assert {row["name"] for row in grants} <= {row["name"] for row in await connection.fetch(GRANTS)}
        mandatory = await connection.fetch(
            "SELECT c.relname || '.' || attname AS name FROM pg_class AS c JOIN pg_attribute ON attrelid = c.oid"
            " WHERE relname = ANY($1) AND attnum > 0 AND attnotnull AND NOT atthasdef",
            [row["name"].partition(".")[0] for row in columns],
        )
        assert {row["name"] for row in mandatory} <= {row["name"] for row in columns}  # old writers know no others


@pytest.fixture
async def upgraded(database: str, fill: Callable[..., Awaitable[None]]) -> str:
    connection = await asyncpg.connect(database)
    for table in tables():
        await fill(connection, table, 60, TENANTS)
    await connection.close()
    return database
