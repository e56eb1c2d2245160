"""Pages of a declared query: rows after a key in a total order, and the position that they are of."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import NoneType
from typing import get_args

import asyncpg

from relight.engine.errors import QueryError
from relight.engine.tables.connecting import Connection
from relight.engine.tables.pools import Pool, Role
from relight.engine.tables.positions import PROJECTOR
from relight.engine.tables.queries import Argument, answering, placed
from relight.projections.catalog import tables
from relight.projections.query import Query

KeyValue = str | int | float | datetime | None

_POSITION_SQL = f"SELECT incarnation, seq, generation FROM projection_positions WHERE projector = '{PROJECTOR}'"
_TAIL = re.compile(r"\s+ORDER BY\s+(?:(?!ORDER BY).)+\s+LIMIT \$limit\s*", re.DOTALL)
_ITEM = re.compile(r"(?P<expression>.+?)(?P<descending> DESC)?(?: NULLS (?P<nulls>FIRST|LAST))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PagePosition:
    """How far the tables are, and which build of them this is: with the same, a query's answer is the same."""

    incarnation: int = 0
    seq: int = 0
    generation: int = 0

    def __str__(self) -> str:
        return f"{self.incarnation}.{self.seq}"


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """One item of a total order; `expression` is over the columns of the query's answer."""

    expression: str
    descending: bool
    nulls_first: bool
    nullable: bool
    type: type

    @property
    def sql(self) -> str:
        return (
            f"{self.expression} {'DESC' if self.descending else 'ASC'} NULLS {'FIRST' if self.nulls_first else 'LAST'}"
        )


@dataclass(frozen=True, slots=True)
class Page:
    """Rows as the database gave them, in order; `next` is the key to go on after, None on the last page."""

    position: PagePosition
    rows: Sequence[asyncpg.Record]
    next: tuple[KeyValue, ...] | None


class Pages:
    """How one query is read page by page; statements are made once for each pattern of NULLs in a key."""

    def __init__(self, query: Query) -> None:
        self.query = query
        self.columns = total_order(query)
        self.order = ", ".join(column.sql for column in self.columns)
        tail = list(_TAIL.finditer(query.sql))
        if not tail or tail[-1].end() != len(query.sql):
            raise QueryError(f"{query.name}: its SQL does not end in ORDER BY … LIMIT $limit, so it has no pages")
        self._rows = query.sql[: tail[-1].start()]
        self._statements: dict[tuple[bool, ...] | None, str] = {}

    def statement(self, after: Sequence[KeyValue] | None = None) -> str:
        """SQL whose arguments are tenant, rows wanted, the parameters in their order, and the values of `after`.

        Each row bears the position, which comes even where there are no rows: all of one snapshot.
        """
        nulls = None if after is None else tuple(value is None for value in after)
        found = self._statements.get(nulls)
        if found is None:
            found = self._statements[nulls] = self._made(nulls)
        return found

    def read(self, records: Sequence[asyncpg.Record], limit: int) -> Page:
        """The page in the records of `statement`, which was asked for `limit` + 1 rows."""
        if not records:
            return Page(PagePosition(), (), None)
        first = records[0]
        position = PagePosition(first["page_incarnation"] or 0, first["page_seq"] or 0, first["page_generation"] or 0)
        rows = records if first["page_row"] else ()
        if len(rows) <= limit:
            return Page(position, rows, None)
        rows = rows[:limit]
        return Page(position, rows, tuple(rows[-1][f"page_key_{i}"] for i in range(len(self.columns))))

    def _made(self, nulls: tuple[bool, ...] | None) -> str:
        branches = [""] if nulls is None else [f"WHERE {branch}" for branch in self._after(nulls)]
        # Within one tenant, `tenant` is no key: left in, it would keep an index from giving the order.
        inner = ", ".join(column.sql for column in self.columns if column.expression != "tenant")
        reads = [
            f"(SELECT i.* FROM ({placed(self.query, self._rows)}) AS i {where} ORDER BY {inner} LIMIT $2::bigint)"
            for where in branches
        ]
        keys = "".join(f", ({column.expression}) AS page_key_{i}" for i, column in enumerate(self.columns))
        outer = ", ".join(
            f"page_key_{i}{column.sql.removeprefix(column.expression)}" for i, column in enumerate(self.columns)
        )
        return (
            "SELECT p.incarnation AS page_incarnation, p.seq AS page_seq, p.generation AS page_generation, q.*"
            f" FROM (SELECT) AS one LEFT JOIN ({_POSITION_SQL}) AS p ON true"
            f" LEFT JOIN (SELECT true AS page_row, r.*{keys.replace('(tenant)', '(r.tenant)')}"
            " FROM (SELECT DISTINCT t AS tenant FROM unnest(ARRAY[$1, '-']::text[]) AS t) AS who"
            f" CROSS JOIN LATERAL ({' UNION ALL '.join(reads)}) AS r ORDER BY {outer} LIMIT $2::bigint) AS q ON true"
            f" ORDER BY {outer}"
        )

    def _after(self, nulls: tuple[bool, ...]) -> list[str]:
        """Conditions for what comes after the key: together all of it, each one range of an index.

        The comparison with the first column, implied by what follows it, is what an index can begin at.
        """
        first = self.columns[0]
        value = f"${3 + len(self.query.parameters)}"
        comes_later = self._later(nulls, 0)
        if nulls[0]:
            same = f"{first.expression} IS NULL AND {comes_later}"
            return [same, f"{first.expression} IS NOT NULL"] if first.nulls_first else [same]
        begin = f"{first.expression} {'<=' if first.descending else '>='} {value} AND {comes_later}"
        return [begin, f"{first.expression} IS NULL"] if first.nullable and not first.nulls_first else [begin]

    def _later(self, nulls: tuple[bool, ...], at: int) -> str:
        column = self.columns[at]
        is_last = at == len(self.columns) - 1
        value = f"${3 + len(self.query.parameters) + sum(not null for null in nulls[:at])}"
        expression = column.expression
        strict: list[str] = []
        if not nulls[at]:
            same = f"{expression} = {value}"
            strict.append(f"{expression} {'<' if column.descending else '>'} {value}")
            if at and column.nullable and not column.nulls_first:
                strict.append(f"{expression} IS NULL")
        else:
            same = f"{expression} IS NULL"
            if at and column.nulls_first:
                strict.append(f"{expression} IS NOT NULL")
        if not is_last:
            strict.append(f"({same} AND {self._later(nulls, at + 1)})")
        return f"({' OR '.join(strict)})" if strict else "false"


def total_order(query: Query) -> tuple[KeyColumn, ...]:
    """The query's order, and after it what of the key of its table is not in it yet: no two rows are the same in it."""
    columns = [_column(query, item) for item in _items(query.order)]
    named = {column.expression for column in columns}
    keys = (table.primary_key() for table in tables() if re.search(rf"\b{table.name}\b", query.sql))
    missing = [name for name in dict.fromkeys(name for key in keys for name in key) if name not in named]
    return (*columns, *(_column(query, name) for name in missing if name in query.row.model_fields))


async def ask(
    pool: Pool,
    pages: Pages,
    *,
    tenant: str,
    role: Role,
    values: Mapping[str, Argument],
    limit: int,
    after: Sequence[KeyValue] | None = None,
    unless: Callable[[PagePosition], bool] | None = None,
) -> Page | PagePosition:
    """One page; or the position alone where `unless` says of it that its answer is known: then no table is read.

    Raises what `relight.engine.tables.queries.run` raises.
    """
    known = [] if after is None else [value for value in after if value is not None]
    with answering(pages.query):
        async with pool.transaction(role, tenant=tenant) as connection:
            if unless is not None:
                position = await read_position(connection)
                if unless(position):
                    return position
            records = await connection.fetch(pages.statement(after), tenant, limit + 1, *values.values(), *known)
    return pages.read(records, limit)


async def read_position(connection: Connection) -> PagePosition:
    """Where the tables are."""
    row = await connection.fetchrow(_POSITION_SQL)
    return PagePosition() if row is None else PagePosition(row["incarnation"], row["seq"], row["generation"])


def _items(order: str) -> list[str]:
    """The order's items: split at commas outside parentheses."""
    items, depth, begin = [], 0, 0
    for i, character in enumerate(order):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            items.append(order[begin:i].strip())
            begin = i + 1
    return [*items, order[begin:].strip()]


def _column(query: Query, item: str) -> KeyColumn:
    found = _ITEM.fullmatch(item)
    assert found is not None
    expression, descending = found["expression"], found["descending"] is not None
    nulls_first = found["nulls"] == "FIRST" if found["nulls"] else descending
    # An expression sorts NULL as some value: that is what it is for. Its type is that of the column in it.
    annotation = next(
        field.annotation for name, field in query.row.model_fields.items() if re.search(rf"\b{name}\b", expression)
    )
    kinds = get_args(annotation) or (annotation,)
    return KeyColumn(
        expression=expression,
        descending=descending,
        nulls_first=nulls_first,
        nullable=NoneType in kinds and expression in query.row.model_fields,
        type=next(kind for kind in kinds if isinstance(kind, type) and kind is not NoneType),
    )
