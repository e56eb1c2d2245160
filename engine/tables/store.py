"""PostgreSQL as a store of the tables: joins what was folded in memory, reads rows back in digest order."""

from collections.abc import AsyncIterator

import asyncpg
import orjson

from relight.engine.tables.connecting import Connection
from relight.engine.tables.upserts import columns_of, upsert_sql
from relight.projections.base import Column, History, State, Value
from relight.projections.tables import Tables

FETCH_ROWS = 5_000
REFUSED = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    ValueError,
    OverflowError,
    TypeError,
)
"""What PostgreSQL or its client says of a value, not of the connection: the batch is bisected for it."""


async def join_tables(connection: Connection, tables: Tables) -> None:
    """Joins `tables` into PostgreSQL's, in the caller's transaction."""
    for table in declared(tables):
        await join_table(connection, table, tables)


def declared(tables: Tables) -> list[State | History]:
    """Those that `tables` has rows of, by name: whoever writes several does so in this order."""
    return sorted((*tables.states, *tables.histories), key=lambda table: table.name)


async def join_table(connection: Connection, table: State | History, tables: Tables) -> None:
    """Joins one of them."""
    await connection.execute(upsert_sql(table), *columns_of(table, tables.rows(table)))


async def read_rows(connection: Connection, table: State | History) -> AsyncIterator[tuple[Value, ...]]:
    """Every row of the table as `Tables.rows` gives them; inside a transaction of the caller's."""
    columns = table.columns()
    order = ", ".join(f'{name} COLLATE "C"' if columns[name] is Column.TEXT else name for name in table.primary_key())
    cursor = connection.cursor(f"SELECT {', '.join(columns)} FROM {table.name} ORDER BY {order}", prefetch=FETCH_ROWS)
    async for row in cursor:
        yield tuple(_value(column, value) for column, value in zip(columns.values(), row, strict=True))


def _value(column: Column, value: object) -> Value:
    if value is None:
        return None
    match column:
        case Column.UUID:
            return str(value)
        case Column.OBJECT:
            return orjson.loads(str(value))
        case Column.TEXTS:
            assert isinstance(value, list)
            return tuple(value)
        case _:
            return value
