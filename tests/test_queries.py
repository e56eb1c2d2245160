"""Queries: arguments are read and refused, rows come as declared, and no plan reads a whole table."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from relight.engine.errors import QueryError, Unreachable
from relight.engine.tables.migrate import migrations
from relight.engine.tables.pools import Pool, address, connect_session, open_pool
from relight.engine.tables.queries import act_as, find, parse, run, statement
from relight.projections.catalog import queries, tables
from relight.projections.query import DEFAULT_LIMIT, Parameter, Query, Row

ROWS = 100_000
MOST = "CASE WHEN n % 10 > 0 THEN 'most' ELSE (ARRAY['-', 'a', 'b', 'c', 'd'])[1 + n / 10 % 5] END"
"""One tenant has 90 % of the rows, the platform and four more have 2 % each."""
HOT = "hot"
"""The name that `fill` gives to half of everything."""
BUFFERS = 2_000
"""Pages of 8 KiB that an answer of 100 rows may touch: a table here has 1,500 to 4,000, its indexes as many again."""
COUNTING_BUFFERS = 4_000
"""The same where a query counts all rows of a tenant, by design: an index has no more."""

every_query = pytest.mark.parametrize("query", queries().values(), ids=queries())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def skewed(shared_database: str, fill: Callable[..., Awaitable[None]]) -> str:
    """A database with 100,000 skewed rows in every table that a query reads."""
    sql = " ".join(query.sql for query in queries().values())
    read = [table for table in tables() if re.search(rf"\b{table.name}\b", sql)]

    async def fill_every(nth: int) -> None:
        connection = await asyncpg.connect(shared_database)
        for table in read[nth::2]:
            await fill(connection, table, ROWS, MOST)
            await connection.execute(f"VACUUM ANALYZE {table.name}")
        await connection.close()

    await asyncio.gather(fill_every(0), fill_every(1))
    return shared_database


@pytest_asyncio.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    async with await open_pool(database, size=2) as pool:
        yield pool


def hot_arguments(query: Query) -> dict[str, object]:
    """What the most rows answer: required ones hot, of the others the default where there is one."""
    values: dict[type, object] = {str: HOT, int: 1, datetime: datetime(2026, 1, 1, 12, tzinfo=UTC)}
    return {name: values[p.type] for name, p in query.parameters.items() if p.default is None}


@every_query
@pytest.mark.parametrize("tenant", ["most", "a"])
async def test_a_querys_plan_reads_no_whole_table(skewed: str, query: Query, tenant: str) -> None:
    connection = await asyncpg.connect(skewed, statement_cache_size=0)
    try:
        async with connection.transaction():
            await act_as(connection, "relight_reader", tenant)
            explained = await connection.fetchval(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement(query)}",
                tenant,
                DEFAULT_LIMIT,
                *parse(query, hot_arguments(query)).values(),
            )
    finally:
        await connection.close()
    plan = json.loads(explained)[0]["Plan"]
    names = {table.name for table in tables()}
    assert [node for node in nodes(plan) if node["Node Type"] == "Seq Scan" and node["Relation Name"] in names] == []
    most = COUNTING_BUFFERS if "count(" in query.sql else BUFFERS
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] <= most, json.dumps(plan, indent=1)


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan] + [node for child in plan.get("Plans", ()) for node in nodes(child)]
