"""Runs the declared queries: in one transaction, under the caller's role and tenant."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from difflib import get_close_matches

import asyncpg
from pydantic import ValidationError

from relight.engine.errors import QueryError, QueryFailed, Unreachable
from relight.engine.tables.connecting import GONE
from relight.engine.tables.pools import Pool, Role
from relight.projections.catalog import queries
from relight.projections.query import DEFAULT_LIMIT, MAX_LIMIT, Parameter, Query, Row

Argument = str | int | datetime | None

PLACEHOLDER = re.compile(r"\$([a-z_]+)")
SQL_TYPES: dict[type, str] = {str: "text", int: "bigint", datetime: "timestamptz"}
SPOKEN_TYPES: dict[type, str] = {str: "text", int: "a whole number", datetime: "a time with its zone"}
BIGINT = range(-(2**63), 2**63)


def find(name: str) -> Query:
    """The query of this name; raises `QueryError` that names the nearest ones."""
    found = queries().get(name)
    if found is None:
        raise QueryError(f"there is no query {name!r}{_instead(name, queries())}")
    return found


def parse(query: Query, arguments: Mapping[str, object]) -> dict[str, Argument]:
    """Every parameter of the query with its argument or default; text is read as the declared type.

    Raises `QueryError`: an argument is missing, unknown or not of its type.
    """
    for name in arguments:
        if name not in query.parameters:
            raise QueryError(f"{query.name} has no parameter {name!r}{_instead(name, query.parameters)}")
    parsed: dict[str, Argument] = {}
    for name, parameter in query.parameters.items():
        value = arguments.get(name)
        if value is None and parameter.required:
            raise QueryError(f"{query.name} needs {name}: {parameter.help}")
        parsed[name] = parameter.default if value is None else _typed(query, name, parameter, value)
    return parsed


async def run(
    pool: Pool,
    query: Query | str,
    *,
    tenant: str,
    role: Role = "relight_reader",
    arguments: Mapping[str, object] | None = None,
    limit: int = DEFAULT_LIMIT,
) -> list[Row]:
    """The answer for `tenant`: its rows and the platform's, in the query's order, at most `limit` (1..10,000).

    `pool` is of `open_pool`. Raises `QueryError`, and `Unreachable` when the server went away: asking again is safe.
    """
    query = find(query) if isinstance(query, str) else query
    values = parse(query, arguments or {})
    if not tenant or "\x00" in tenant:
        raise QueryError("a query is asked for a tenant; name one, or - for the platform's rows alone")
    if not 1 <= limit <= MAX_LIMIT:
        raise QueryError(f"limit must be 1 to {MAX_LIMIT}, not {limit}")
    with answering(query):
        async with pool.transaction(role, tenant=tenant) as connection:
            records = await connection.fetch(statement(query), tenant, limit, *values.values())
    return [_row(query, record) for record in records]


@contextmanager
def answering(query: Query) -> Iterator[None]:
    """Makes of whatever can go wrong with a query an error that says so."""
    try:
        yield
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InvalidParameterValueError) as error:
        raise QueryFailed(f"{query.name}: {error}; has this database been migrated? see `relight migrate`") from error
    except asyncpg.QueryCanceledError:
        raise QueryFailed(f"{query.name} was cancelled for taking too long; ask for less") from None
    except asyncpg.DataError as error:
        raise QueryError(f"{query.name}: {error}; correct that argument") from None
    except TimeoutError:
        raise Unreachable(
            f"PostgreSQL had no connection free or no answer to {query.name} in time; ask again"
        ) from None
    except GONE as error:
        # An InterfaceError is what leaving the transaction made of it.
        raise Unreachable(
            f"PostgreSQL went away during {query.name} ({error.__context__ or error}); ask again"
        ) from error


def statement(query: Query) -> str:
    """SQL whose arguments are tenant, limit and the parameters in their order."""
    return (
        "SELECT q.* FROM (SELECT DISTINCT t AS tenant FROM unnest(ARRAY[$1, '-']::text[]) AS t) AS who "
        f"CROSS JOIN LATERAL ({placed(query, query.sql)}) AS q ORDER BY {query.order} LIMIT $2::bigint"
    )


def placed(query: Query, sql: str) -> str:
    """A piece of the query's SQL with the numbers of its arguments: after tenant and limit, the parameters."""
    numbers = {name: (3 + i, SQL_TYPES[parameter.type]) for i, (name, parameter) in enumerate(query.parameters.items())}
    numbers["limit"] = (2, "bigint")

    def positional(match: re.Match[str]) -> str:
        number, sql_type = numbers[match[1]]
        return f"${number}::{sql_type}"

    return PLACEHOLDER.sub(positional, sql)


def _typed(query: Query, name: str, parameter: Parameter, value: object) -> Argument:
    read: object = value
    if isinstance(value, str) and parameter.type is not str:
        try:
            read = int(value) if parameter.type is int else datetime.fromisoformat(value)
        except ValueError:
            read = None
    match read:
        case str() if parameter.type is str and "\x00" not in read:
            return read
        case bool():
            pass
        case int() if parameter.type is int and read in BIGINT:
            return read
        case datetime() if parameter.type is datetime and read.tzinfo is not None:
            return read
    example = ", as in 2026-01-31T09:00:00Z" if parameter.type is datetime else ""
    raise QueryError(f"{query.name}: {name} is {SPOKEN_TYPES[parameter.type]}{example}, not {str(value)[:80]!r}")


def _row(query: Query, record: asyncpg.Record) -> Row:
    try:
        return query.row.model_validate(dict(record))
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise QueryError(
            f"{query.name} answered with a row that it does not declare: {where}: {fault['msg']}"
        ) from error


def _instead(name: str, known: Mapping[str, object]) -> str:
    if not known:
        return "; it takes none"
    near = get_close_matches(name, known, n=3) or sorted(known)
    return f"; did you mean {', '.join(near)}?" if near != sorted(known) else f"; there is {', '.join(near)}"
