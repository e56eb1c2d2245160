"""The property on which everything rests, in PostgreSQL: any order, any repetition, any batches give memory's rows."""

import asyncio
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import asyncpg
import pytest
from folding import Wire, event_id, fold
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from strategies import event_lists

from relight.engine.tables.partitions import Partitions
from relight.engine.tables.store import join_tables, read_rows
from relight.engine.tables.upserts import TAKEN_FOR_INFINITY, columns_of, upsert_sql
from relight.projections.base import Column, History, State
from relight.projections.catalog import tables
from relight.projections.tables import Tables

SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
EXAMPLES = 300 if os.environ.get("RELIGHT_TEST_LONG") == "1" else 25
# A derandomized run without shrinking: bounded in time, and the same in every run.
PROFILE = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[*SLOW_IS_FINE, HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate],
    derandomize=True,
    database=None,
)


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[Wire], list[list[Wire]]]:
    """Events, and the same in another order, some of them again, in batches of any size."""
    events = draw(event_lists(max_more=40))
    told = draw(st.permutations(events + draw(st.lists(st.sampled_from(events), max_size=len(events)))))
    cuts = sorted(draw(st.sets(st.integers(1, len(told)), max_size=6)) | {0, len(told)})
    return events, [list(told[a:b]) for a, b in pairwise(cuts)]


async def rows_of(connection: Any, table: State | History) -> list[tuple[Any, ...]]:
    async with connection.transaction():
        return [row async for row in read_rows(connection, table)]


async def check(database: str, told: tuple[list[Wire], list[list[Wire]]]) -> int:
    events, cut = told
    connection = await asyncpg.connect(database, server_settings={"role": "relight_owner"})
    try:
        await connection.execute("TRUNCATE " + ", ".join(table.name for table in tables()))
        await connection.execute("SET ROLE relight_projector")
        partitions = Partitions()
        for batch in cut:
            folded = fold(event for _, _, event in batch)
            await partitions.ensure(connection, folded)
            async with connection.transaction():
                await join_tables(connection, folded)
        once = fold(event for _, _, event in events)
        for table in tables():
            in_memory = list(once.rows(table))
            in_postgres = await rows_of(connection, table)
            assert list(map(repr, in_postgres)) == [repr(_in_order(row)) for row in in_memory], table.name
        return len(once)
    finally:
        await connection.close()


def test_any_order_repetition_and_batches_give_the_rows_of_memory(database: str) -> None:
    rows = 0

    @PROFILE
    @given(batches())
    def gives_the_rows_of_memory(told: tuple[list[Wire], list[list[Wire]]]) -> None:
        nonlocal rows
        rows += asyncio.run(check(database, told))

    gives_the_rows_of_memory()
    assert rows > EXAMPLES


TEXTS = (
    "",
    "NULL",
    "null",
    "{}",
    '{"a",NULL}',
    "'; DROP TABLE x; --",
    'quote " backslash \\ brace } comma , semicolon ;',
    "\\N",
    "\\x41",
    "line\nfeed\ttab\r",
    " leading and trailing ",
    "ü 日本 🙂 \u202e \u00a0 \ufeff",
    "A",
    "a",
    "Z" * 65_536,
)
FLOATS = (0.0, 1e-300, 5e-324, 1.7976931348623157e308, 1e16, 1e16 + 2, 123456789.123456789, 0.1, 1 / 3, -2.5)
INTEGERS = (0, 1, -1, 2**53, -(2**53), 2**31)
TIMES = (
    datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999998, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2000, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
)
OBJECTS: tuple[dict[str, Any], ...] = (
    {},
    {"": None, "NULL": "null"},
    {text[:200]: text for text in TEXTS},
    {"numbers": [*INTEGERS, *(value for value in FLOATS if not value.is_integer()), 1e-7, 1.5e-10, 123456.789e3 + 0.5]},
    {"nested": {"b": [[], {}, [{"a": [True, False, None]}]], "a": {"z": 1, "y": 2}}},
    {"z": 1, "aa": 2, "b": 3},
)
LISTS: tuple[tuple[str, ...], ...] = ((), ("",), tuple(sorted(TEXTS, key=str.encode)), ("NULL",), ("null", "{}"))


def unusual(column: Column) -> Iterator[Any]:
    match column:
        case Column.TEXT:
            yield from TEXTS
        case Column.BIGINT:
            yield from INTEGERS
        case Column.FLOAT:
            yield from FLOATS
        case Column.BOOLEAN:
            yield from (True, False)
        case Column.TIME:
            yield from TIMES
        case Column.UUID:
            yield from (event_id(0), event_id(2**48 - 1, 2**62))
        case Column.OBJECT:
            yield from OBJECTS
        case Column.TEXTS:
            yield from LISTS


STATE = State(
    name="unusual_states",
    key={"name": Column.TEXT},
    groups={"all": {c.name.lower(): c for c in Column}, "other": {"more": Column.OBJECT}},
    sets=("elements",),
)
HISTORY = History(name="unusual_events", columns_={c.name.lower(): c for c in Column})


@pytest.mark.parametrize("table", [STATE, HISTORY], ids=lambda table: table.name)
async def test_unusual_values_come_back_identical(database: str, table: State | History) -> None:
    connection = await asyncpg.connect(database)
    columns = ", ".join(f"{name} {column.value}" for name, column in table.columns().items())
    key = ", ".join(table.primary_key())
    await connection.execute(f"CREATE TABLE {table.name} ({columns}, PRIMARY KEY ({key}))")
    values = {column: list(unusual(column)) for column in Column}
    length = max(map(len, values.values())) + 1
    folded = Tables()
    for n in range(length):
        held: dict[str, Any] = {c.name.lower(): [*values[c], None][n % (len(values[c]) + 1)] for c in Column}
        name = TEXTS[n % len(TEXTS)][:200] + str(n)
        if isinstance(table, History):
            row = ("tenant " + name, event_id(n), "eu", TIMES[n % len(TIMES)], *held.values())
            folded.histories.setdefault(table, {})[row[0], row[1]] = row
        else:
            states = folded._row(table, TEXTS[n % 5], (name,))
            states.put("all", (2**53, event_id(n)), tuple(held.values()))
            for text in LISTS[n % len(LISTS)]:
                states.add("elements", event_id(n), text)
    for _ in range(2):
        await connection.execute(upsert_sql(table), *columns_of(table, folded.rows(table)))
        found = await rows_of(connection, table)
        assert list(map(repr, found)) == [repr(_in_order(row)) for row in folded.rows(table)]
    await connection.close()


@pytest.mark.parametrize("moment", TAKEN_FOR_INFINITY)
def test_a_moment_that_the_client_takes_for_infinity_is_refused_rather_than_changed(moment: datetime) -> None:
    """Found: it was stored as infinity, and every digest failed from then on."""
    row = ("acme", event_id(1), "eu", moment, *(None for _ in Column))
    with pytest.raises(ValueError, match="infinity"):
        columns_of(HISTORY, [row])


def _in_order(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """jsonb keeps its keys by length, then by bytes; a digest sorts them."""
    return tuple(_ordered(value) for value in row)


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
        return {key: _ordered(value[key]) for key in keys}
    return [_ordered(item) for item in value] if isinstance(value, list) else value
