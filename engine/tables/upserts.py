"""The join of a batch into PostgreSQL's tables: one set-based statement a table, built from its declaration."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cache

import orjson

from relight.projections.base import Column, History, State, Value

TAKEN_FOR_INFINITY = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


@cache
def upsert_sql(table: State | History) -> str:
    """One array parameter for each column of the table, in its order; rows have distinct keys."""
    columns = table.columns()
    names = ", ".join(columns)
    arrays = ", ".join(f"${n}::{_transport(column)}[]" for n, column in enumerate(columns.values(), 1))
    selected = ", ".join(f"new.{name}::text[]" if c is Column.TEXTS else f"new.{name}" for name, c in columns.items())
    key = ", ".join(table.primary_key())
    action = "NOTHING" if isinstance(table, History) else _merge_sql(table)
    return (
        f"INSERT INTO {table.name} AS held ({names}) SELECT {selected} FROM unnest({arrays}) AS new ({names})"
        f" ON CONFLICT ({key}) DO {action}"
    )


def _merge_sql(table: State) -> str:
    assignments, conditions = [], []
    for group, members in table.groups.items():
        rev, event_id = f"{group}_rev", f"{group}_event_id"
        newer = (
            f"(excluded.{event_id} IS NOT NULL AND (held.{event_id} IS NULL"
            f" OR (excluded.{rev}, excluded.{event_id}) > (held.{rev}, held.{event_id})))"
        )
        conditions.append(newer)
        assignments += [
            f"{name} = CASE WHEN {newer} THEN excluded.{name} ELSE held.{name} END"
            for name in (*members, rev, event_id)
        ]
    for name in table.sets:
        event_id = f"{name}_event_id"
        conditions.append(
            f"(excluded.{name} IS NOT NULL AND (held.{name} IS NULL OR NOT held.{name} @> excluded.{name}"
            f" OR held.{event_id} < excluded.{event_id}))"
        )
        assignments += [
            f"{name} = CASE WHEN excluded.{name} IS NULL THEN held.{name} ELSE ARRAY("
            f'SELECT DISTINCT element COLLATE "C" FROM unnest(held.{name} || excluded.{name}) AS element'
            " ORDER BY 1) END",
            f"{event_id} = greatest(held.{event_id}, excluded.{event_id})",
        ]
    return f"UPDATE SET {', '.join(assignments)} WHERE {' OR '.join(conditions)}"


def _transport(column: Column) -> str:
    """Arrays of arrays would be unnested whole: a list of texts travels as its literal."""
    return "text" if column is Column.TEXTS else column.value


def columns_of(table: State | History, rows: Iterable[Sequence[Value]]) -> list[list[object]]:
    """The parameters of `upsert_sql`: rows turned into columns. Raises `ValueError` for what would be changed."""
    columns: list[list[object]] = [list(values) for values in zip(*rows, strict=True)]
    for n, column in enumerate(table.columns().values()):
        if column is Column.OBJECT:
            columns[n] = [None if value is None else orjson.dumps(value).decode() for value in columns[n]]
        elif column is Column.TEXTS:
            columns[n] = [None if value is None else _array_literal(value) for value in columns[n]]
        elif column is Column.TIME and any(moment in columns[n] for moment in TAKEN_FOR_INFINITY):
            raise ValueError("asyncpg writes the first and the last moment of a datetime as -infinity and infinity")
    return columns


def _array_literal(values: object) -> str:
    assert isinstance(values, tuple)
    quoted = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return "{" + ",".join(f'"{value}"' for value in quoted) + "}"
