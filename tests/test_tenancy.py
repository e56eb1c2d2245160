"""Tenants: the twenty tables show each its own rows, directly and through a shared connection of PgBouncer."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest
import pytest_asyncio

from relight.engine.tables.connecting import Connection
from relight.engine.tables.pools import Pool, PoolOptions, Role, act_as, open_pool
from relight.projections.base import History, State
from relight.projections.catalog import tables

TENANTS = ("A", "B", "-")
ROWS = 4
"""Of each tenant in each table."""
LOGINS = {"test_reader": "relight_reader", "test_service": "relight_reader, relight_operator, relight_projector"}
REFUSED = asyncpg.InsufficientPrivilegeError

every_table = pytest.mark.parametrize("table", tables(), ids=lambda table: table.name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def filled(shared_database: str, fill: Callable[..., Awaitable[None]]) -> AsyncIterator[str]:
    """A database with rows of A, B and the platform in every table, written as the projector."""
    connection = await asyncpg.connect(shared_database, server_settings={"role": "relight_projector"})
    for table in tables():
        await fill(connection, table, ROWS * 3, f"(ARRAY{list(TENANTS)})[1 + n % 3]")
    await connection.execute("RESET ROLE")
    await connection.close()
    admin = await asyncpg.connect(shared_database)
    for login, roles in LOGINS.items():
        await admin.execute(f"CREATE ROLE {login} LOGIN PASSWORD '{login}' IN ROLE {roles}")
    yield shared_database
    for login in LOGINS:
        await admin.execute(f"DROP ROLE {login}")
    await admin.close()


@pytest.fixture(scope="module", params=["direct", "pgbouncer"])
def route(filled: str, request: pytest.FixtureRequest) -> str:
    """The filled database's URL: the server's own, or of a PgBouncer that has one connection in transaction mode."""
    if request.param == "direct":
        return filled
    return str(request.getfixturevalue("pgbouncer")(filled, tuple(LOGINS)))


@pytest_asyncio.fixture
async def pool(route: str, at: Callable[..., str]) -> AsyncIterator[Pool]:
    """Logged in as a service that may become reader, operator and projector."""
    async with await open_pool(at(route, user="test_service"), PoolOptions(size=2)) as pool:
        yield pool


@asynccontextmanager
async def acting(pool: Pool, role: Role, tenant: str) -> AsyncIterator[Connection]:
    async with pool.acquire() as connection, connection.transaction():
        await act_as(connection, role, tenant)
        yield connection


async def seen(connection: Connection, table: State | History) -> Counter[str]:
    """Rows by tenant."""
    return Counter(row["tenant"] for row in await connection.fetch(f"SELECT tenant FROM {table.name}"))


@pytest.mark.parametrize("role", ["relight_reader", "relight_operator"])
@every_table
async def test_a_tenant_sees_its_rows_and_the_platforms(pool: Pool, table: State | History, role: Role) -> None:
    async with acting(pool, role, "A") as connection:
        assert await seen(connection, table) == {"A": ROWS, "-": ROWS}
    async with acting(pool, role, "nobody") as connection:
        assert await seen(connection, table) == {"-": ROWS}


@pytest.mark.parametrize("role", ["relight_reader", "relight_operator"])
@every_table
async def test_without_a_tenant_nothing_is_seen(pool: Pool, table: State | History, role: Role) -> None:
    async with acting(pool, role, "") as connection:
        assert await seen(connection, table) == {}
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT set_config('role', $1, true)", role)
        assert await seen(connection, table) == {}


@every_table
async def test_the_platforms_operator_sees_all_and_its_reader_only_the_platforms(
    pool: Pool, table: State | History
) -> None:
    async with acting(pool, "relight_operator", "-") as connection:
        assert await seen(connection, table) == dict.fromkeys(TENANTS, ROWS)
    async with acting(pool, "relight_reader", "-") as connection:
        assert await seen(connection, table) == {"-": ROWS}


@pytest.mark.parametrize("role", ["relight_reader", "relight_operator"])
@every_table
async def test_readers_and_operators_cannot_write(pool: Pool, table: State | History, role: Role) -> None:
    for write in (
        f"INSERT INTO {table.name} SELECT * FROM {table.name}",
        f"UPDATE {table.name} SET tenant = tenant",
        f"DELETE FROM {table.name}",
        f"TRUNCATE {table.name}",
    ):
        async with acting(pool, role, "A") as connection:
            with pytest.raises(REFUSED):
                await connection.execute(write)


@every_table
async def test_row_level_security_holds_the_tables_owner_too(filled: str, table: State | History) -> None:
    connection = await asyncpg.connect(filled, server_settings={"role": "relight_owner"})
    try:
        assert await seen(connection, table) == {}
        row = '{"tenant": "A", "event_id": "01600000-0000-7000-a000-000000000000"}'
        insert = f"INSERT INTO {table.name} SELECT * FROM jsonb_populate_record(NULL::{table.name}, $1)"
        with pytest.raises(REFUSED, match="row-level security"):
            await connection.execute(insert, row)
    finally:
        await connection.close()


async def test_row_level_security_is_forced_on_exactly_the_twenty_tables(filled: str) -> None:
    connection = await asyncpg.connect(filled)
    try:
        rows = await connection.fetch(
            "SELECT relname, relowner::regrole::text AS owner, relforcerowsecurity, "
            "ARRAY(SELECT polname::text FROM pg_policy WHERE polrelid = c.oid ORDER BY 1) AS policies "
            "FROM pg_class AS c WHERE relrowsecurity AND NOT relispartition AND relnamespace = 'public'::regnamespace "
            "ORDER BY relname"
        )
        policies = ["platform_operator_reads", "projector_writes", "tenant_reads"]
        trims = ["retention_deletes", "retention_selects"]
        assert [tuple(row) for row in rows] == [
            (table.name, "relight_owner", True, sorted(policies + trims * isinstance(table, History)))
            for table in tables()
        ]
        roles = await connection.fetch(
            "SELECT rolname FROM pg_roles WHERE rolname ~ '^relight_' AND (rolsuper OR rolbypassrls OR rolcanlogin)"
        )
        assert roles == []
    finally:
        await connection.close()


@pytest.mark.parametrize(
    "escape",
    [
        "SET ROLE relight_projector",
        "SET ROLE relight_operator",
        "SET ROLE relight_owner",
        "SET ROLE postgres",
        "SET SESSION AUTHORIZATION postgres",
        "ALTER TABLE circuit_breaker_states NO FORCE ROW LEVEL SECURITY",
        "CREATE POLICY mine ON circuit_breaker_states USING (true)",
        "GRANT relight_projector TO test_reader",
        "CALL relight_protect('circuit_breaker_states')",
    ],
)
async def test_a_login_that_is_only_a_reader_stays_one(filled: str, at: Callable[..., str], escape: str) -> None:
    connection = await asyncpg.connect(at(filled, user="test_reader"))
    try:
        with pytest.raises(REFUSED):
            await connection.execute(escape)
    finally:
        await connection.close()


@every_table
async def test_a_reader_gains_nothing_by_resetting_its_role_or_switching_security_off(
    filled: str, at: Callable[..., str], table: State | History
) -> None:
    connection = await asyncpg.connect(at(filled, user="test_reader"))
    try:
        await connection.execute("SET ROLE relight_reader; SET relight.tenant = 'A'; RESET ROLE")
        assert await seen(connection, table) == {"A": ROWS, "-": ROWS}
        await connection.execute("SET row_security = off")
        with pytest.raises(REFUSED, match="row-level security"):
            await seen(connection, table)
    finally:
        await connection.close()


async def test_tenants_taking_turns_on_one_connection_never_see_each_other(route: str, at: Callable[..., str]) -> None:
    async with await open_pool(at(route, user="test_reader"), PoolOptions(size=3)) as pool:

        async def ask(tenant: str, expected: dict[str, int]) -> None:
            for i in range(40):
                async with pool.acquire() as connection, connection.transaction():
                    if tenant:
                        await act_as(connection, "relight_reader", tenant)
                    assert await seen(connection, tables()[i % 20]) == expected

        await asyncio.gather(ask("A", {"A": ROWS, "-": ROWS}), ask("B", {"B": ROWS, "-": ROWS}), ask("", {}))


async def test_an_error_in_a_transaction_leaves_neither_role_nor_tenant_behind(pool: Pool) -> None:
    async with pool.acquire() as connection:
        before = await connection.fetchrow("SELECT current_user, current_setting('role')")
        with pytest.raises(asyncpg.DivisionByZeroError):  # noqa: PT012 (leaving the transaction is the point)
            async with connection.transaction():
                await act_as(connection, "relight_operator", "-")
                await connection.execute("SELECT 1 / 0")
        assert await connection.fetchrow("SELECT current_user, current_setting('role')") == before
        assert not await connection.fetchval("SELECT current_setting('relight.tenant', true)")
