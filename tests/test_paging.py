"""Pages of queries: together they are the whole answer in a total order, whatever is written meanwhile, and no plan
reads a whole table."""

import json
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from plans import FULL, LEAVES, nodes

from relight.engine.errors import QueryError
from relight.engine.tables.connecting import Connection
from relight.engine.tables.paging import KeyValue, Page, Pages, ask, total_order
from relight.engine.tables.pools import Pool, PoolOptions, act_as, open_pool
from relight.engine.tables.queries import parse
from relight.projections.catalog import queries, tables
from relight.projections.query import MAX_LIMIT, Query, Row

HOT = "hot"
ROWS = 20_000
SKEWED = "CASE WHEN n % 10 > 0 THEN 'most' ELSE '-' END"
BUFFERS = 800
"""Pages of 8 KiB that 100 rows of two tenants may cost, as for the queries themselves; a table has 300 to 800."""
PAGE = 100
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
BEFORE_2020_MS = 1_577_836_800_000
"""One partition holds all of that."""

every_query = pytest.mark.parametrize("query", queries().values(), ids=queries())


class Thing(Row):
    tenant: str
    name: str | None
    rank: int | None
    at: datetime | None
    n: int


def hot_arguments(query: Query) -> dict[str, object]:
    values: dict[type, object] = {str: HOT, int: 1, datetime: NOON}
    return {name: values[p.type] for name, p in query.parameters.items() if p.default is None}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def filled(shared_database: str, fill: Callable[..., Awaitable[None]]) -> str:
    """A database with 20,000 rows in every table that a query reads, most of them one tenant's."""
    sql = " ".join(query.sql for query in queries().values())
    connection = await asyncpg.connect(shared_database)
    read = [table for table in tables() if re.search(rf"\b{table.name}\b", sql)]
    for table in read:
        await fill(connection, table, ROWS, SKEWED, nulls=True)
        for (leaf,) in await connection.fetch(LEAVES, table.name):
            await connection.execute(f"ALTER TABLE {leaf} SET (autovacuum_enabled = off)")
    for step in ("VACUUM", "ANALYZE"):
        await connection.execute(f"{step} {', '.join(table.name for table in read)}")
    await connection.close()
    return shared_database


@pytest_asyncio.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    async with await open_pool(database, PoolOptions(size=2)) as pool:
        yield pool


async def page(pool: Pool, pages: Pages, limit: int, after: tuple[KeyValue, ...] | None = None) -> Page:
    found = await ask(
        pool,
        pages,
        tenant="most",
        role="relight_reader",
        values=parse(pages.query, hot_arguments(pages.query)),
        limit=limit,
        after=after,
    )
    assert isinstance(found, Page)
    return found


def rows_of(page: Page, query: Query) -> list[dict[str, Any]]:
    """Not validated: where these rows have NULL, a fleet's own have not."""
    return [{name: row[name] for name in query.row.model_fields} for row in page.rows]


@every_query
def test_a_querys_total_order_tells_any_two_rows_apart(query: Query) -> None:
    named = {column.expression for column in total_order(query)}
    keys = [set(table.primary_key()) for table in tables() if re.search(rf"\b{table.name}\b", query.sql)]
    grouped = re.search(r"GROUP BY (.+)", query.sql)
    if grouped:
        keys = [{item.strip().removeprefix("d.") for item in grouped[1].split(",")}]
    constants = set(re.findall(r"\.(\w+) = \$", query.sql))
    assert any(key <= named | constants for key in keys), (named, keys)


@every_query
async def test_the_first_and_the_next_page_read_no_whole_table(filled: str, query: Query) -> None:
    counts = "count(" in query.sql
    pages = Pages(query)
    arguments = list(parse(query, hot_arguments(query)).values())
    connection = await asyncpg.connect(filled, statement_cache_size=0)
    await connection.set_type_codec("uuid", schema="pg_catalog", encoder=str, decoder=str)
    try:
        async with connection.transaction():
            await act_as(connection, "relight_reader", "most")
            await plan_is_good(connection, pages.statement(), ["most", PAGE + 1, *arguments], counts)
            first = pages.read(await connection.fetch(pages.statement(), "most", PAGE + 1, *arguments), PAGE)
            assert first.rows
            if first.next is not None:
                known = [value for value in first.next if value is not None]
                sql = pages.statement(first.next)
                await plan_is_good(connection, sql, ["most", PAGE + 1, *arguments, *known], counts)
    finally:
        await connection.close()


async def plan_is_good(connection: Connection, sql: str, arguments: list[Any], counts: bool) -> None:
    answer = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", *arguments)
    plan = json.loads(answer)[0]["Plan"]
    full = {name for (name,) in await connection.fetch(FULL)}
    whole = [node for node in nodes(plan) if node["Node Type"] == "Seq Scan" and node.get("Relation Name") in full]
    assert whole == [], json.dumps(plan, indent=1)
    if not counts:
        assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] <= BUFFERS, json.dumps(plan, indent=1)


@every_query
async def test_pages_together_are_the_whole_answer(filled: str, query: Query) -> None:
    pages = Pages(query)
    async with await open_pool(filled, PoolOptions(size=1)) as pool:
        whole = rows_of(await page(pool, pages, MAX_LIMIT), query)
        assert whole
        size = max(1, min(len(whole), 500) // 7)
        found: list[dict[str, Any]] = []
        after: tuple[KeyValue, ...] | None = None
        for _ in range(9):
            one = await page(pool, pages, size, after)
            found += rows_of(one, query)
            after = one.next
            if after is None:
                break
        assert found == whole[: len(found)]
        assert after is not None or found == whole


ORDERS = [
    "name, tenant, n",
    "name DESC, rank, tenant, n",
    "rank DESC NULLS LAST, at, tenant DESC, n",
    "rank NULLS FIRST, name DESC NULLS LAST, tenant, n DESC",
    "at DESC, tenant, n",
    "tenant, at DESC NULLS LAST, n",
    "CASE WHEN at IS NULL THEN 'infinity' ELSE at END, tenant, n",
    "n % 3, tenant, n",
]


@pytest.mark.parametrize("order", ORDERS)
async def test_any_order_with_nulls_and_ties_is_gone_through_row_by_row(pool: Pool, order: str) -> None:
    sql = """
        SELECT who.tenant, CASE WHEN n % 4 > 0 THEN 'x' || n % 3 END AS name, nullif(n % 5, 0) AS rank,
            CASE WHEN n % 3 > 0 THEN timestamptz '2026-01-01Z' + n % 4 * interval '1 us' END AS at, n
        FROM generate_series(1, 40) AS n
        ORDER BY n
        LIMIT $limit
    """
    pages = Pages(Query(name="things", question="?", row=Thing, sql=sql, order=order))
    whole = await page(pool, pages, MAX_LIMIT)
    assert len(whole.rows) == 80
    for size in (1, 7):
        found: list[dict[str, Any]] = []
        after: tuple[KeyValue, ...] | None = None
        while True:
            one = await page(pool, pages, size, after)
            found += rows_of(one, pages.query)
            if (after := one.next) is None:
                break
        assert found == rows_of(whole, pages.query)


async def test_pages_neither_repeat_nor_skip_what_was_there_all_along_while_others_write(
    database: str, pool: Pool
) -> None:
    writer = await asyncpg.connect(database, server_settings={"role": "relight_projector"})
    chance = random.Random(7)

    async def add(number: int) -> None:
        await writer.execute(
            "INSERT INTO circuit_breaker_events VALUES ($1, $2, 'eu', now(), 'hot', 'success', '{}')",
            chance.choice(["most", "-"]),
            f"{chance.randrange(BEFORE_2020_MS):012x}70008000{number:012x}",
        )

    for number in range(60):
        await add(number)
    pages = Pages(queries()["breakers.history"])
    before = {row["event_id"] for row in rows_of(await page(pool, pages, MAX_LIMIT), pages.query)}
    seen: list[str] = []
    after: tuple[KeyValue, ...] | None = None
    number = 60
    while True:
        one = await page(pool, pages, 4, after)
        seen += [row["event_id"] for row in rows_of(one, pages.query)]
        if (after := one.next) is None:
            break
        for _ in range(3):
            await add(number := number + 1)
    await writer.close()
    assert len(seen) == len(set(seen))
    assert before <= set(seen)
    assert seen == sorted(seen, reverse=True)


async def test_rows_and_position_are_of_one_snapshot(database: str, pool: Pool) -> None:
    writer = await asyncpg.connect(database, server_settings={"role": "relight_projector"})
    await writer.execute("INSERT INTO projection_positions VALUES ('relight', 3, 0, '', now())")
    pages = Pages(queries()["breakers.history"])
    assert (await page(pool, pages, 5)).rows == ()
    for seq in range(1, 30):
        async with writer.transaction():
            await writer.execute("UPDATE projection_positions SET seq = $1", seq)
            await writer.execute(
                "INSERT INTO circuit_breaker_events VALUES ('most', $1, 'eu', now(), 'hot', 'success', '{}')",
                f"00000000-0000-7000-8000-{seq:012x}",
            )
            during = await page(pool, pages, MAX_LIMIT)
            assert (during.position.incarnation, during.position.seq, len(during.rows)) == (3, seq - 1, seq - 1)
        after = await page(pool, pages, MAX_LIMIT)
        assert (after.position.seq, len(after.rows)) == (seq, seq)
    await writer.close()


def test_sql_without_an_order_and_a_limit_has_no_pages() -> None:
    with pytest.raises(QueryError, match=r"^q: its SQL does not end in ORDER BY … LIMIT \$limit"):
        Pages(Query(name="q", question="?", row=Thing, sql="SELECT 1", order="n", parameters={}))


def test_no_query_has_a_parameter_named_as_those_that_all_have() -> None:
    from relight.engine.http.queries import OWN_PARAMETERS

    assert [name for name, query in queries().items() if set(query.parameters) & set(OWN_PARAMETERS)] == []
