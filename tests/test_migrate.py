"""Migrations: each file once whoever runs them, changed ones refused, and tables as the projections declare them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import asyncpg
import pytest

from relight.engine.errors import MigrationError
from relight.engine.tables.connecting import Session, connect_session
from relight.engine.tables.migrate import LOCK, Applied, Migration, State, migrate, migrations, read, status
from relight.engine.tables.pools import open_pool
from relight.projections.catalog import tables

SPELT = {"timestamptz": "timestamp with time zone"}
ROLES = ("relight_owner", "relight_projector", "relight_reader", "relight_operator", "relight_gate")
NAMES = [migration.name for migration in migrations()]


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Session]:
    connection = await connect_session(url)
    try:
        yield connection
    finally:
        await connection.close()


def url_of(server: str, database: str, login: str | None = None) -> str:
    """The same server's other database, as another login whose password is its name."""
    parts = urlsplit(server)
    credentials, host = parts.netloc.rsplit("@", 1)
    return parts._replace(netloc=f"{f'{login}:{login}' if login else credentials}@{host}", path=database).geturl()


async def make_database(server: str, name: str, owner: str | None = None, attributes: str = "CREATEROLE") -> str:
    """A new database; with `owner`, belonging to and seen by such a login, new too unless it exists."""
    async with connected(server) as admin:
        if owner and not await admin.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", owner):
            await admin.execute(f"CREATE ROLE {owner} LOGIN PASSWORD '{owner}' {attributes}")
        await admin.execute(f"CREATE DATABASE {name}" + (f" OWNER {owner}" if owner else ""))
    return url_of(server, name, owner)


async def run(url: str) -> list[Applied]:
    async with connected(url) as connection:
        return await migrate(connection)


def file(name: str, sql: str) -> Migration:
    return read([(name, sql.encode())])[0]


ONE = file("001_one.sql", "CREATE TABLE one (id int);")


@pytest.mark.parametrize("owner", [None, "test_owner"], ids=["superuser", "owner with CREATEROLE"])
async def test_a_new_database_gets_every_file_in_order_and_a_second_run_nothing(server: str, owner: str | None) -> None:
    url = await make_database(server, "test_new", owner)
    assert [applied.name for applied in await run(url)] == NAMES
    assert await run(url) == []
    async with connected(url) as connection:
        assert {file.state for file in await status(connection)} == {State.APPLIED}
        for role in ROLES:
            await connection.execute(f"SET ROLE {role}")


async def test_an_ordinary_login_that_forgets_its_role_reads_nothing(server: str) -> None:
    url = await make_database(server, "test_forgot", "test_owner")
    await run(url)
    async with connected(url) as connection:
        if connection.get_server_version().major < 16:
            pytest.skip("before PostgreSQL 16 a login inherits what is granted to it")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch(f"SELECT FROM {tables()[0].name}")


async def test_four_runners_at_once_apply_each_file_once(server: str) -> None:
    url = await make_database(server, "test_runners", "test_owner")
    runs = await asyncio.gather(*(run(url) for _ in range(4)))
    assert sorted(applied.name for one in runs for applied in one) == NAMES


async def test_four_databases_of_a_new_cluster_are_migrated_at_once(server: str) -> None:
    urls = [await make_database(server, f"test_{i}", "test_owner") for i in range(4)]
    runs = await asyncio.gather(*(run(url) for url in urls))
    assert [[applied.name for applied in one] for one in runs] == [NAMES] * 4


async def test_a_login_that_did_not_make_the_roles_is_told_what_to_grant(server: str) -> None:
    await run(await make_database(server, "test_first", "test_owner"))
    url = await make_database(server, "test_second", "test_other")
    async with connected(server) as admin:
        if admin.get_server_version().major >= 16:  # before, CREATEROLE could grant any role
            with pytest.raises(
                MigrationError, match=r"193_engine.sql: permission denied to grant role .* GRANT relight_owner"
            ):
                await run(url)
        await admin.execute(f"GRANT {', '.join(ROLES)} TO test_other")
    assert [applied.name for applied in await run(url)] == NAMES


async def test_the_five_roles_are_enough_without_createrole(server: str) -> None:
    url = await make_database(server, "test_granted", "test_owner", "NOCREATEROLE")
    with pytest.raises(MigrationError, match="permission denied to create role"):
        await run(url)
    async with connected(server) as admin:
        for role in ROLES:
            await admin.execute(f"CREATE ROLE {role}; GRANT {role} TO test_owner")
    assert [applied.name for applied in await run(url)] == NAMES


async def test_runners_behind_a_pgbouncer_in_transaction_mode_apply_each_file_once(
    server: str, pgbouncer: Callable[[str, tuple[str, ...]], str]
) -> None:
    url = pgbouncer(await make_database(server, "test_bouncer"), ())

    async def run_in_pool() -> list[Applied]:
        async with await open_pool(url) as pool, pool.acquire() as connection:
            return await migrate(connection)

    runs = await asyncio.gather(run_in_pool(), run_in_pool())
    assert sorted(applied.name for one in runs for applied in one) == NAMES


async def test_a_dry_run_names_what_is_pending_and_changes_nothing(server: str) -> None:
    async with connected(await make_database(server, "test_dry")) as connection:
        assert [applied.name for applied in await migrate(connection, dry_run=True)] == NAMES
        assert {file.state for file in await status(connection)} == {State.PENDING}
        assert (
            await connection.fetchval("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == 0
        )


async def test_an_edited_file_is_refused_with_both_hashes(database: str) -> None:
    edited = [file(m.name, m.sql + "\n-- more") if m.version == 198 else m for m in migrations()]
    async with connected(database) as connection:
        [now, then] = [m.sha256[:12] for known in (edited, migrations()) for m in known if m.version == 198]
        with pytest.raises(MigrationError, match=rf"198_.*was edited.*now {now}, then {then}"):
            await migrate(connection, known=edited)
        assert [file.name for file in await status(connection, known=edited) if file.state is State.EDITED] == [
            "198_circuit_breaker_framework.sql"
        ]


async def test_a_newer_database_is_refused(database: str) -> None:
    async with connected(database) as connection:
        with pytest.raises(MigrationError, match=rf"{NAMES[-1]}.*upgrade relight"):
            await migrate(connection, known=migrations()[:-1])
        assert (await status(connection, known=migrations()[:-1]))[-1].state is State.UNKNOWN


async def test_a_process_of_the_release_before_goes_on_beside_a_newer_one_if_it_lacks_nothing(database: str) -> None:
    async with connected(database) as connection:
        assert await migrate(connection, known=migrations()[:-1], beside_newer=True) == []
        await connection.execute("DELETE FROM relight_migrations WHERE version = $1", migrations()[-2].version)
        with pytest.raises(MigrationError, match="upgrade relight"):
            await migrate(connection, known=migrations()[:-1], beside_newer=True)


async def test_a_failing_file_is_named_with_its_line_and_leaves_nothing(server: str) -> None:
    two = file("002_two.sql", "CREATE TABLE two (id int);\n\nALTER TABLE two ADD COLUMN other nothing;\n")
    async with connected(await make_database(server, "test_failing")) as connection:
        with pytest.raises(MigrationError, match=r'^002_two.sql, line 3: type "nothing" does not exist; '):
            await migrate(connection, known=[ONE, two])
        assert [file.state for file in await status(connection, known=[ONE, two])] == [State.APPLIED, State.PENDING]
        assert await connection.fetchval("SELECT to_regclass('two') IS NULL")
        assert not connection.is_in_transaction()


async def test_a_file_that_ends_its_transaction_is_refused(server: str) -> None:
    two = file("002_two.sql", "CREATE TABLE two (id int); COMMIT; BEGIN;")
    async with connected(await make_database(server, "test_commit")) as connection:
        with pytest.raises(MigrationError, match="ends the transaction"):
            await migrate(connection, known=[ONE, two])
        assert not connection.is_in_transaction()


@pytest.mark.parametrize("local", ["", "LOCAL"])
async def test_a_role_set_in_a_file_does_not_outlive_it(server: str, local: str) -> None:
    one = file("001_one.sql", f"CREATE ROLE test_leaked; SET {local} ROLE test_leaked;")
    async with connected(await make_database(server, "test_role")) as connection:
        await migrate(connection, known=[one])
        assert await connection.fetchval("SELECT current_user = session_user AND current_setting('role') = 'none'")


async def test_a_logins_own_statement_timeout_ends_neither_the_wait_for_a_runner_nor_a_file(server: str) -> None:
    url = await make_database(server, "test_timeouts", "test_owner")
    slow = file("001_slow.sql", "SELECT pg_sleep(0.2);")
    async with connected(url_of(server, "test_timeouts")) as other, connected(server) as admin:
        await admin.execute("ALTER ROLE test_owner SET statement_timeout = '50ms'")
        async with connected(url) as connection:
            await other.execute("SELECT pg_advisory_lock($1)", LOCK)
            run = asyncio.create_task(migrate(connection, known=[slow]))
            async with asyncio.timeout(10):
                waiting = (
                    "SELECT true FROM pg_stat_activity WHERE wait_event = 'advisory' AND now() - query_start > '0.1 s'"
                )
                while not run.done() and not await admin.fetchval(waiting):
                    await asyncio.sleep(0.01)
            await other.execute("SELECT pg_advisory_unlock($1)", LOCK)
            assert len(await run) == 1
            assert await connection.fetchval("SHOW statement_timeout") == "50ms"


def test_two_files_with_one_number_are_refused() -> None:
    with pytest.raises(MigrationError, match=r"001_a\.sql and 001_b\.sql have one number"):
        read([("001_a.sql", b""), ("001_b.sql", b"")])


def test_line_ends_do_not_change_a_files_hash() -> None:
    assert file("001_a.sql", "a\r\nb\r\n") == file("001_a.sql", "a\nb\n")


def test_the_projections_have_twenty_tables() -> None:
    assert len(tables()) == 20


async def test_every_table_has_the_columns_that_its_projection_declares(database: str) -> None:
    async with connected(database) as connection:
        for table in tables():
            columns = await connection.fetch(
                "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
                "WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
                table.name,
            )
            declared = [
                (name, {"timestamptz": "timestamp with time zone"}.get(t, t)) for name, t in table.columns().items()
            ]
            assert sorted(tuple(column) for column in columns) == sorted(declared), table.name


async def test_every_table_is_keyed_by_tenant_first(database: str) -> None:
    async with connected(database) as connection:
        for table in tables():
            key = await connection.fetchval(
                "SELECT array_agg(a.attname ORDER BY k.i) FROM pg_index, unnest(indkey) WITH ORDINALITY AS k (n, i), "
                "pg_attribute AS a "
                "WHERE indrelid = $1::regclass AND indisprimary AND a.attrelid = indrelid AND a.attnum = k.n",
                table.name,
            )
            assert tuple(key) == table.primary_key()
            assert key[0] == "tenant"


async def test_every_table_and_column_has_a_comment(database: str) -> None:
    async with connected(database) as connection:
        uncommented = await connection.fetch(
            "SELECT c.relname, a.attname FROM pg_class AS c JOIN pg_attribute AS a "
            "ON a.attrelid = c.oid AND attnum > 0 "
            "WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace AND NOT attisdropped "
            "AND (col_description(c.oid, attnum) IS NULL OR obj_description(c.oid, 'pg_class') IS NULL)"
        )
        assert [tuple(row) for row in uncommented] == []
