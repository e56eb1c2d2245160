"""Tables filled with rows like a fleet's, of which a plan or a figure says something."""

import re
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest

from relight.projections.base import Column, History, State

HOT = "hot"
"""The name that half of a column's values are; of a key, one row's."""
AGE_MS = 100_000
"""Between two rows of a history, unless told otherwise."""
PARTITIONED = "SELECT relkind = 'p' FROM pg_class WHERE oid = $1::text::regclass"
"""Not so before migration 204."""
Fill = Callable[..., Coroutine[Any, Any, None]]


@pytest.fixture(scope="session")
def fill() -> Fill:
    """`await fill(connection, table, rows, tenant, nulls=False, age_ms=…)`: rows like a fleet's, the same in every run.

    `tenant` is SQL over n = 1..rows. Of texts with a CHECK the first value is 95 % of them, of others `HOT` is
    half; with `nulls`, a twentieth of the times and sets that may be NULL are.
    """

    async def fill(
        connection: Any,
        table: State | History,
        rows: int,
        tenant: str,
        *,
        nulls: bool = False,
        age_ms: int = AGE_MS,
    ) -> None:
        allowed, nullable = await _constraints(connection, table)
        values = {
            name: _value(table, name, column, allowed.get(name, []), nulls and name in nullable, age_ms)
            for name, column in table.columns().items()
        } | {"tenant": tenant}
        if isinstance(table, History) and await connection.fetchval(PARTITIONED, table.name):
            ids = f"SELECT array_agg({values['event_id']}) FROM generate_series(1, {rows}::bigint, 100) AS n"
            await connection.execute(f"SELECT relight_ensure_partitions('{table.name}', ({ids}))")
        await connection.execute(
            f"INSERT INTO {table.name} ({', '.join(values)}) "
            f"SELECT {', '.join(values.values())} FROM generate_series(1, {rows}::bigint) AS n"
        )

    return fill


async def _constraints(connection: Any, table: State | History) -> tuple[Mapping[str, list[str]], set[str]]:
    checks = await connection.fetch(
        "SELECT a.attname, pg_get_constraintdef(c.oid) FROM pg_constraint AS c JOIN pg_attribute AS a "
        "ON a.attrelid = c.conrelid AND ARRAY[a.attnum] = c.conkey WHERE c.contype = 'c' AND c.conrelid = $1::regclass",
        table.name,
    )
    nullable = await connection.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attnotnull", table.name
    )
    return {name: re.findall(r"'([^']*)'::text", check) for name, check in checks}, {name for (name,) in nullable}


def _value(table: State | History, name: str, column: Column, allowed: list[str], nullable: bool, age_ms: int) -> str:
    """SQL over n."""
    salt = sum(name.encode()) * 1_000_003
    chance = f"(hashint8(n + {salt}) & 2147483647)"
    age = "n" if isinstance(table, History) else f"({chance} % 100000)::bigint"
    key = tuple(table.key) if isinstance(table, State) else ()
    if key and name == key[-1]:
        return f"CASE n WHEN 1 THEN '{HOT}' ELSE 'key ' || n END"
    match column:
        case Column.TEXT if name == "checkpoint_type":
            steps = "WHEN 3 THEN 'task_step' WHEN 5 THEN 'task_step_begun' WHEN 7 THEN 'task_step_begun'"
            rare = f"WHEN 1 THEN 'calls_counted' {steps}"
            names = f"CASE {chance} % 40 {rare} ELSE 'name ' || {chance} % 2000 END"
            return f"CASE WHEN {chance} % 2 = 0 THEN '{HOT}' ELSE {names} END"
        case Column.TEXT if allowed:
            others = f"(ARRAY{allowed[1:] or allowed})[1 + {chance} % {len(allowed[1:] or allowed)}]"
            return f"CASE WHEN {chance} % 100 < 95 THEN '{allowed[0]}' ELSE {others} END"
        case Column.TEXT:
            return f"CASE WHEN {chance} % 2 = 0 THEN '{HOT}' ELSE 'name ' || {chance} % 2000 END"
        case Column.BIGINT:
            return f"1 + {chance} % 1000"
        case Column.FLOAT:
            return f"{chance} % 1000 / 1000.0"
        case Column.BOOLEAN:
            return f"{chance} % 20 = 0"
        case Column.TIME:
            moment = f"timestamptz '2026-01-01Z' + {age} * {age_ms} * interval '1 ms'"
            return f"CASE WHEN {chance} % 20 > 0 THEN {moment} END" if nullable else moment
        case Column.UUID:
            return (
                f"(lpad(to_hex(1767225600000 + {age} * {age_ms}), 12, '0') || '7000a000' ||"
                " lpad(to_hex(n), 12, '0'))::uuid"
            )
        case Column.OBJECT if table.name == "circuit_breaker_events":
            vote = "'process', 'name ' || n % 50, 'fault_domain', 'a', 'reason', 'b', 'failure_count', 5"
            return f"jsonb_build_object('n', n, {vote}, 'retry_at', '2026-01-01T00:00:00Z')"
        case Column.OBJECT if name == "state_snapshot":
            return "jsonb_build_object('n', n, 'step', 'step', 'key', 'key', 'epoch', n)"
        case Column.OBJECT:
            return "jsonb_build_object('n', n)"
        case Column.TEXTS:
            names = f"ARRAY['{HOT}', 'name ' || n % 10]"
            return f"CASE WHEN {chance} % 20 > 0 THEN {names} END" if nullable else names
