"""Queries: arguments are read or refused, rows come as declared, and no plan reads a whole table."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import asyncpg
import pytest
import pytest_asyncio
from plans import FULL, LEAVES, nodes

from relight.engine.errors import QueryError, Unreachable
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.pools import Pool, PoolOptions, Role, act_as, open_pool
from relight.engine.tables.queries import parse, run, statement
from relight.projections.catalog import queries, tables
from relight.projections.query import DEFAULT_LIMIT, MAX_LIMIT, Parameter, Query, Row

HOT = "hot"
"""The name that `fill` gives to half of everything."""
ROWS = 50_000
AGE_MS = 200_000
"""Between two rows of a history: they lie in four monthly partitions."""
SKEWED = "CASE WHEN n % 10 > 0 THEN 'most' ELSE (ARRAY['-', 'a', 'b', 'c', 'd'])[1 + n / 10 % 5] END"
"""One tenant has 90 % of the rows, the platform and four more have 2 % each."""
BUFFERS = 800
"""Pages of 8 KiB that 100 rows of two tenants may cost; a table here has 800 to 2,000, and its indexes as many."""
COUNTING_BUFFERS = 1_500
"""The same where a query counts all of a tenant's rows, by design: no more than one index has."""
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Slept(Row):
    tenant: str


class At(Row):
    n: int
    at: datetime


SLEEP = Query(name="sleep", question="?", row=Slept, sql="SELECT who.tenant FROM pg_sleep(30)", order="tenant")
TYPED = Query(
    name="typed",
    question="?",
    row=At,
    sql="SELECT $number AS n, $at AS at",
    order="n",
    parameters={
        "number": Parameter(type=int, help="which", default=7),
        "at": Parameter(type=datetime, help="when", required=True),
    },
)


def hot_arguments(query: Query) -> dict[str, object]:
    """What most rows answer: the default where there is one."""
    values: dict[type, object] = {str: HOT, int: 1, datetime: NOON}
    return {name: values[p.type] for name, p in query.parameters.items() if p.default is None}


@pytest_asyncio.fixture
async def pool(shared_database: str) -> AsyncIterator[Pool]:
    """For tests that look at no rows: a database for each would take most of their time."""
    async with await open_pool(shared_database, PoolOptions(size=2)) as pool:
        yield pool


@pytest_asyncio.fixture
async def own_pool(database: str) -> AsyncIterator[Pool]:
    """Of the test's own `database`."""
    async with await open_pool(database, PoolOptions(size=2)) as pool:
        yield pool


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def skewed(shared_database: str, fill: Callable[..., Awaitable[None]]) -> str:
    """A database with 50,000 skewed rows in every table that a query reads."""
    sql = " ".join(query.sql for query in queries().values())
    read = [table for table in tables() if re.search(rf"\b{table.name}\b", sql)]

    async def fill_every_second(first: int) -> None:
        # A commit that is not flushed yet keeps pages from being marked as visible to all, and so does an autovacuum.
        connection = await asyncpg.connect(shared_database, server_settings={"synchronous_commit": "on"})
        for table in read[first::2]:
            async with connection.transaction():
                await fill(connection, table, ROWS, SKEWED, nulls=True, age_ms=AGE_MS)
                for (leaf,) in await connection.fetch(LEAVES, table.name):
                    await connection.execute(f"ALTER TABLE {leaf} SET (autovacuum_enabled = off)")
        await connection.close()

    await asyncio.gather(fill_every_second(0), fill_every_second(1))
    # A sample of 9,000 rows a table tells of these as much as the default's 30,000.
    connection = await asyncpg.connect(shared_database, server_settings={"default_statistics_target": "30"})
    for step in ("VACUUM", "ANALYZE"):
        await connection.execute(f"{step} {', '.join(table.name for table in read)}")
    await connection.close()
    return shared_database


@pytest.mark.parametrize(
    ("role", "tenant"), [("relight_reader", "most"), ("relight_reader", "a"), ("relight_operator", "most")]
)
@pytest.mark.parametrize("query", queries().values(), ids=queries())
async def test_a_querys_plan_reads_no_whole_table(skewed: str, query: Query, role: Role, tenant: str) -> None:
    counts = "count(" in query.sql
    arguments = parse(query, hot_arguments(query)).values()
    connection = await asyncpg.connect(skewed, statement_cache_size=0)
    try:
        async with connection.transaction():
            await act_as(connection, role, tenant)
            explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement(query)}"
            answer = await connection.fetchval(explain, tenant, MAX_LIMIT if counts else DEFAULT_LIMIT, *arguments)
        full = {name for (name,) in await connection.fetch(FULL)}
    finally:
        await connection.close()
    plan = json.loads(answer)[0]["Plan"]
    assert plan["Actual Rows"] > 0
    assert len(full) > 2 * len(tables())  # every history lies in several partitions
    whole = [node for node in nodes(plan) if node["Node Type"] == "Seq Scan" and node.get("Relation Name") in full]
    assert whole == []
    buffers = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    assert buffers <= (COUNTING_BUFFERS if counts else BUFFERS), json.dumps(plan, indent=1)


async def test_every_query_answers_with_the_rows_that_it_declares(
    database: str, own_pool: Pool, fill: Callable[..., Awaitable[None]]
) -> None:
    for query in queries().values():
        assert await run(own_pool, query, tenant="A", arguments=hot_arguments(query)) == []
    connection = await asyncpg.connect(database)
    for table in tables():
        await fill(connection, table, 300, "(ARRAY['A', 'B', '-'])[1 + n % 3]")
        for name in {"replicated_to", "revoked_at"} & table.columns().keys():  # NULL is what queries ask for there
            await connection.execute(f"UPDATE {table.name} SET {name} = NULL WHERE tenant = 'A'")
    await connection.close()
    unanswered = []
    for name, query in queries().items():
        rows = await run(own_pool, name, tenant="A", arguments=hot_arguments(query), limit=MAX_LIMIT)
        assert {type(row) for row in rows} <= {query.row}
        assert {getattr(row, "tenant", "A") for row in rows} <= {"A", "-"}
        unanswered += [] if rows else [name]
    assert unanswered == []


async def test_the_limit_is_kept_over_both_tenants(
    database: str, own_pool: Pool, fill: Callable[..., Awaitable[None]]
) -> None:
    connection = await asyncpg.connect(database)
    events = next(table for table in tables() if table.name == "circuit_breaker_events")
    await fill(connection, events, 60, "(ARRAY['A', 'B', '-'])[1 + n % 3]")
    await connection.close()
    every = await run(own_pool, "breakers.history", tenant="A", arguments={"service": HOT})
    assert 5 < len(every) < 40
    assert await run(own_pool, "breakers.history", tenant="A", arguments={"service": HOT}, limit=5) == every[:5]
    assert every == sorted(every, key=lambda row: str(row.model_dump()["event_id"]), reverse=True)
    assert isinstance(every[0].model_dump()["details"], dict)


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ({"at": NOON}, (7, NOON)),
        ({"number": 3, "at": NOON}, (3, NOON)),
        ({"number": "-3", "at": "2026-01-01T12:00:00Z"}, (-3, NOON)),
        ({"number": None, "at": "2026-01-01T13:00+01:00"}, (7, NOON)),
    ],
)
async def test_arguments_are_given_as_values_or_as_text(
    pool: Pool, given: dict[str, object], answer: tuple[int, datetime]
) -> None:
    [row, _] = await run(pool, TYPED, tenant="A", arguments=given)
    assert row == At(n=answer[0], at=answer[1])


@pytest.mark.parametrize(
    ("query", "arguments", "message"),
    [
        ("breakers.open", {}, r"no query 'breakers.open'; did you mean breakers.open_now"),
        (
            "nothing like it",
            {},
            r"no query .*; there is breakers.history, breakers.open_now, .*, tasks.steps_done_twice$",
        ),
        ("breakers.history", {}, r"^breakers.history needs service: the dependency's name$"),
        ("breakers.history", {"service": None}, r"needs service"),
        ("breakers.history", {"servise": "x"}, r"no parameter 'servise'; there is service$"),
        ("breakers.history", {"service": 3}, r"service is text, not '3'"),
        ("breakers.history", {"service": "a\x00"}, r"service is text, not"),
        ("breakers.open_now", {"service": "x"}, r"no parameter 'service'; it takes none$"),
        (TYPED, {"at": "yesterday"}, r"at is a time with its zone, as in 2026-01-31T09:00:00Z, not 'yesterday'"),
        (TYPED, {"at": "2026-01-31T09:00:00"}, r"at is a time with its zone"),
        (TYPED, {"at": datetime(2026, 1, 1)}, r"at is a time with its zone"),  # noqa: DTZ001 (what is refused)
        (TYPED, {"at": 3}, r"at is a time with its zone"),
        (TYPED, {"at": NOON, "number": "3.5"}, r"number is a whole number, not '3.5'"),
        (TYPED, {"at": NOON, "number": True}, r"number is a whole number, not 'True'"),
        (TYPED, {"at": NOON, "number": 2**63}, r"number is a whole number"),
        ("breakers.history", {"service": "\ud800"}, r"surrogates not allowed"),
    ],
)
async def test_a_wrong_query_or_argument_is_refused_with_what_there_is(
    pool: Pool, query: Query | str, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(QueryError, match=message):
        await run(pool, query, tenant="A", arguments=arguments)


@pytest.mark.parametrize("limit", [0, -1, MAX_LIMIT + 1])
async def test_a_limit_out_of_range_is_refused(pool: Pool, limit: int) -> None:
    with pytest.raises(QueryError, match="limit must be 1 to 10000"):
        await run(pool, "breakers.open_now", tenant="A", limit=limit)


@pytest.mark.parametrize("tenant", ["", "a\x00"])
async def test_a_query_without_a_tenant_is_refused(pool: Pool, tenant: str) -> None:
    with pytest.raises(QueryError, match="for a tenant"):
        await run(pool, "breakers.open_now", tenant=tenant)


async def test_a_row_that_the_query_does_not_declare_is_an_error(pool: Pool) -> None:
    wrong = Query(name="wrong", question="?", row=Slept, sql="SELECT 1 AS tenant", order="tenant")
    with pytest.raises(QueryError, match="wrong answered with a row that it does not declare: tenant: "):
        await run(pool, wrong, tenant="A")


async def test_a_query_runs_in_a_transaction_that_cannot_write(pool: Pool) -> None:
    sql = "SELECT current_setting('transaction_read_only') AS tenant"
    rows = await run(pool, Query(name="q", question="?", row=Slept, sql=sql, order="tenant"), tenant="A")
    assert rows == [Slept(tenant="on")] * 2


async def test_a_database_that_was_not_migrated_is_named_as_the_reason(postgres: str) -> None:
    async with await open_pool(postgres) as pool:
        with pytest.raises(QueryError, match=r'"circuit_breaker_states" does not exist; .* `relight migrate`'):
            await run(pool, "breakers.open_now", tenant="A")


@pytest.mark.parametrize(
    ("end", "error"),
    [("pg_terminate_backend", Unreachable), ("pg_cancel_backend", QueryError)],
    ids=["lost", "cancelled"],
)
async def test_a_query_that_is_ended_says_so_and_the_pool_goes_on(
    database: str, own_pool: Pool, end: str, error: type[Exception]
) -> None:
    asked = asyncio.create_task(run(own_pool, SLEEP, tenant="A"))
    admin = await asyncpg.connect(database)
    async with asyncio.timeout(10):
        while not await admin.fetchval(
            f"SELECT {end}(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND query LIKE '%pg_sleep(30)%' AND pid <> pg_backend_pid() AND wait_event = 'PgSleep'"
        ):
            await asyncio.sleep(0.01)
    await admin.close()
    with pytest.raises(error, match="sleep"):
        await asked
    assert await run(own_pool, "breakers.open_now", tenant="A") == []


async def test_nobody_answers_at_a_closed_port_and_a_silent_or_foreign_server_is_told_apart(postgres: str) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        with pytest.raises(Unreachable, match=rf"^PostgreSQL at 127.0.0.1:{port} refuses connections; "):
            await open_pool(f"postgresql://me:secret@127.0.0.1:{port}/db")
        listener.listen()
        with pytest.raises(Unreachable, match=rf"^PostgreSQL at 127.0.0.1:{port} did not answer within 0.2 s; "):
            await connect_session(f"postgresql://me:secret@127.0.0.1:{port}/db", connect_s=0.2)
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unreachable, match=rf"^PostgreSQL at 127.0.0.1:{port} closed the connection"):
            await connect_session(f"postgresql://me:secret@127.0.0.1:{port}/db?sslmode=disable")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda url: re.sub(r":[0-9a-f]+@", ":secret@", url),
            "refuses the password; correct it in RELIGHT_DATABASE_URL",
        ),
        (lambda url: re.sub(r"//\w+:", "//nobody_here:", url), "refuses the password"),
        (lambda url: url.replace("/relight?", "/nothing_here?"), 'no such database (database "nothing_here" does not'),
        (
            lambda url: url.replace("sslmode=disable", "sslmode=require"),
            "offers no TLS; enable it there or remove sslmode",
        ),
        (lambda url: re.sub(r"@[\d.]+", "@nowhere.invalid", url), "has an unknown host name"),
        (lambda url: url.replace("postgresql:", "mysql:"), "postgresql://user:password@host:port/database"),
        (lambda url: re.sub(r":[0-9a-f]+@", ":se/cret@", url), "cannot be understood: escape special characters"),
        (lambda url: "", "the address in RELIGHT_DATABASE_URL"),
    ],
)
async def test_a_wrong_address_is_one_sentence_without_the_password(
    postgres: str, edit: Callable[[str], str], message: str
) -> None:
    url = edit(postgres)
    with pytest.raises(Unreachable, match=re.escape(message)) as raised:
        await connect_session(url)
    said = str(raised.value)
    assert said.startswith("PostgreSQL at ")
    assert "\n" not in said
    assert not re.search(r"secret|se/|cret", said)
    assert re.findall(r":([0-9a-f]{20,})@", postgres)[0] not in said


async def test_a_session_has_its_role_from_the_beginning_or_says_why_not(database: str, postgres: str) -> None:
    session = await connect_session(database, role="relight_projector")
    assert await session.fetchval("SELECT current_user") == "relight_projector"
    await session.execute("RESET ALL; RESET ROLE")
    assert await session.fetchval("SELECT current_user") == "relight_projector"
    await session.close()
    with pytest.raises(Unreachable, match=r'refuses the role .*"nobody_here".* run `relight migrate`'):
        await connect_session(postgres, role="nobody_here")


async def test_a_projector_is_sent_away_from_a_pgbouncer(
    database: str, pgbouncer: Callable[[str, tuple[str, ...]], str]
) -> None:
    url = pgbouncer(database, ())
    with pytest.raises(Unreachable, match=r"is a PgBouncer .*; a projector needs the server's own address"):
        await connect_session(url, role="relight_projector")
    async with await open_pool(url) as pool:
        assert await run(pool, "breakers.open_now", tenant="A") == []
