"""Sets of tables: the live one, a shadow made like it, the previous one; and what moves tables between them."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from asyncpg import Record

from relight.engine.errors import RebuildRefused
from relight.engine.tables.connecting import Session
from relight.projections.base import History, State

Table = State | History

OWNER, PROJECTOR_ROLE = "relight_owner", "relight_projector"
BUILD_S = 6 * 3600.0
"""Index and statistics of one table, at most."""


@dataclass(frozen=True, kw_only=True)
class Sets:
    """Their schemas, quoted where need be."""

    live: str
    shadow: str
    previous: str


async def find_sets(session: Session) -> Sets:
    """The live set is the one that this session reads. Raises `RebuildRefused` when it was not migrated."""
    row = await session.fetchrow(
        "SELECT quote_ident(nspname) AS live, quote_ident(nspname || '_shadow') AS shadow,"
        " quote_ident(nspname || '_previous') AS previous, to_regclass('retired_tables') IS NOT NULL AS migrated"
        " FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace"
        " WHERE pg_class.oid = to_regclass('projection_positions')"
    )
    if row is None or not row["migrated"]:
        raise RebuildRefused("this database was not migrated to this release: run `relight migrate` first")
    return Sets(live=row["live"], shadow=row["shadow"], previous=row["previous"])


@asynccontextmanager
async def acting(session: Session, role: str, path: str) -> AsyncIterator[None]:
    """A transaction as this role, which looks for tables in the schemas of `path`."""
    async with session.transaction():
        await become(session, role, path)
        yield


async def become(session: Session, role: str, path: str) -> None:
    """Until the end of the transaction at hand, or the next one of these."""
    await session.execute(
        "SELECT set_config('role', $1, true), set_config('search_path', $2, true)", role, f"{path}, pg_temp"
    )


async def drop_all(session: Session, schema: str) -> None:
    """Every table in the schema of a set; in a transaction as its owner."""
    rows = await session.fetch(
        "SELECT oid::regclass::text AS name FROM pg_class"
        " WHERE relnamespace = $1::text::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition",
        schema,
    )
    if rows:
        await session.execute(f"DROP TABLE {', '.join(row['name'] for row in rows)}")


async def make_shadow(session: Session, sets: Sets, tables: Sequence[Table]) -> None:
    """Tables like the live ones, closed to whom these are closed to, before there is a row in them.

    With primary keys and nothing else to slow the load down: `build_indexes` adds the other indexes. The first
    partition ends at 2020 whatever the live one holds, so that a migrated table falls into months.
    """
    async with acting(session, OWNER, sets.live):
        await drop_all(session, sets.shadow)
        for table in tables:
            live, shadow = f"{sets.live}.{table.name}", f"{sets.shadow}.{table.name}"
            by_month = " PARTITION BY RANGE (event_id)" if isinstance(table, History) else ""
            await session.execute(f"CREATE TABLE {shadow} (LIKE {live} INCLUDING ALL EXCLUDING INDEXES){by_month}")
            for row in await session.fetch(CONSTRAINTS, live):
                await session.execute(f"ALTER TABLE {shadow} ADD CONSTRAINT {row['name']} {row['definition']}")
            await _set_storage_and_comment(session, live, shadow)
            if isinstance(table, History):
                await session.execute(
                    "CALL relight_begin_history($1::text::regclass, $1 || '_first', relight_first_id('2020-01-01'))",
                    shadow,
                )
            else:
                await session.execute("CALL relight_protect($1::text::regclass)", shadow)
            await _protect_alike(session, live, shadow)
        await cover_partitions(session, sets, sets.shadow, tables)


async def build_indexes(sessions: Sequence[Session], sets: Sets, tables: Sequence[Table]) -> None:
    """All other indexes of the live tables, by the same names, on the loaded shadow ones; and their statistics.

    Without these a swapped-in table would be read whole until autovacuum comes round to it, and its parent for ever.
    The sessions share the tables between them.
    """
    left = list(reversed(tables))

    async def work(session: Session) -> None:
        # VACUUM runs in no transaction, so role and path are the session's meanwhile.
        await session.execute(f"SET statement_timeout = 0; SET ROLE {OWNER}; SET search_path = {sets.live}, pg_temp")
        try:
            while left:
                name = left.pop().name
                for (definition,) in await session.fetch(INDEXES, f"{sets.live}.{name}"):
                    on_shadow = re.sub(
                        r" ON (ONLY )?.+? USING ", f" ON {sets.shadow}.{name} USING ", definition, count=1
                    )
                    await session.execute(on_shadow, timeout=BUILD_S)
                await session.execute(f"VACUUM (ANALYZE) {sets.shadow}.{name}", timeout=BUILD_S)
        finally:
            if not session.is_closed():
                await session.execute("RESET ROLE; RESET statement_timeout; RESET search_path")

    for ended in await asyncio.gather(*(work(session) for session in sessions), return_exceptions=True):
        if isinstance(ended, BaseException):
            raise ended


async def refuse_dependents(session: Session, sets: Sets, tables: Iterable[Table]) -> None:
    """A view would go on reading the table that was swapped out. Raises `RebuildRefused`."""
    rows = await session.fetch(DEPENDENTS, [f"{sets.live}.{table.name}" for table in tables])
    if rows:
        raise RebuildRefused(
            f"{', '.join(row['reader'] for row in rows)} reads these tables and would go on reading the old ones:"
            " drop it, rebuild, and create it again"
        )


async def refuse_unlike(session: Session, sets: Sets, incoming: str, tables: Sequence[Table]) -> None:
    """Whatever a migration or an operator changed since the incoming tables were made. Raises `RebuildRefused`."""
    live, other = await _likeness(session, sets.live, tables), await _likeness(session, incoming, tables)
    unlike = {table.name for table in tables if live.get(table.name) != other.get(table.name)}
    if unlike:
        raise RebuildRefused(
            f"{', '.join(sorted(unlike))}: the tables in {incoming} differ from the live ones in columns, indexes,"
            " policies or grants, for one was changed meanwhile; nothing was swapped: run `relight rebuild` anew"
        )


async def cover_partitions(session: Session, sets: Sets, incoming: str, tables: Iterable[Table]) -> None:
    """The incoming tables get the months that were added to the live ones meanwhile; as their owner."""
    names = [table.name for table in tables if isinstance(table, History)]
    await session.execute(
        "SELECT relight_add_partitions(format('%s.%I', $2::text, name)::regclass, ARRAY("
        " SELECT low FROM relight_partitions(format('%s.%I', $3::text, name)::regclass) WHERE low IS NOT NULL"
        ")) FROM unnest($1::text[]) AS name",
        names,
        incoming,
        sets.live,
    )


async def move_tables(session: Session, names: Sequence[str], *, source: str, target: str) -> None:
    """Tables and partitions, with their indexes, from one schema to another; as their owner."""
    rows = await session.fetch(MEMBERS, [f"{source}.{name}" for name in names])
    await session.execute(";".join(f"ALTER TABLE {source}.{row['member']} SET SCHEMA {target}" for row in rows))


async def _likeness(session: Session, schema: str, tables: Sequence[Table]) -> dict[str, Record]:
    rows = await session.fetch(LIKENESS, schema, [table.name for table in tables])
    return {row["relname"]: row for row in rows}


async def _set_storage_and_comment(session: Session, live: str, shadow: str) -> None:
    row = await session.fetchrow(
        "SELECT array_to_string(reloptions, ', ') AS options, quote_nullable(obj_description(oid, 'pg_class')) AS said"
        " FROM pg_class WHERE oid = $1::text::regclass",
        live,
    )
    assert row is not None
    await session.execute(f"COMMENT ON TABLE {shadow} IS {row['said']}")
    if row["options"]:
        await session.execute(f"ALTER TABLE {shadow} SET ({row['options']})")


async def _protect_alike(session: Session, live: str, shadow: str) -> None:
    """What operators granted, revoked or ruled beyond what relight does."""
    for query in (GRANTS, POLICIES):
        for (statement,) in await session.fetch(query, live, shadow):
            await session.execute(statement)


CONSTRAINTS = """
SELECT quote_ident(conname) AS name, pg_get_constraintdef(oid) AS definition
FROM pg_constraint WHERE conrelid = $1::text::regclass AND contype IN ('p', 'u')
"""
INDEXES = """
SELECT pg_get_indexdef(indexrelid) FROM pg_index AS i
WHERE indrelid = $1::text::regclass AND indisvalid
AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid AND contype IN ('p', 'u'))
ORDER BY 1
"""
DEPENDENTS = """
SELECT DISTINCT r.ev_class::regclass::text AS reader
FROM pg_depend AS d JOIN pg_rewrite AS r ON r.oid = d.objid AND d.classid = 'pg_rewrite'::regclass
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY($1::text[]::regclass[]) AND r.ev_class <> d.refobjid
"""
MEMBERS = """
SELECT quote_ident(relname) AS member FROM pg_class
WHERE oid = ANY($1::text[]::regclass[])
OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = ANY($1::text[]::regclass[]))
"""
GRANTS = """
WITH grants AS (
    SELECT c.oid::regclass::text AS name, a.privilege_type, a.is_grantable,
        CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee
    FROM pg_class AS c, aclexplode(c.relacl) AS a
    WHERE c.oid IN ($1::text::regclass, $2::text::regclass) AND a.grantee <> c.relowner
)
SELECT format('REVOKE %s ON TABLE %s FROM %s', privilege_type, $2::text, grantee) FROM (
    SELECT privilege_type, grantee FROM grants WHERE name = $2::text::regclass::text
    EXCEPT SELECT privilege_type, grantee FROM grants WHERE name = $1::text::regclass::text
) AS more
UNION ALL
SELECT format(
    'GRANT %s ON TABLE %s TO %s %s', privilege_type, $2::text, grantee,
    CASE WHEN is_grantable THEN 'WITH GRANT OPTION' END
) FROM (
    SELECT privilege_type, grantee, is_grantable FROM grants WHERE name = $1::text::regclass::text
    EXCEPT SELECT privilege_type, grantee, is_grantable FROM grants WHERE name = $2::text::regclass::text
) AS fewer
"""
POLICIES = """
SELECT format(
    'CREATE POLICY %I ON %s AS %s FOR %s TO %s %s %s', polname, $2::text,
    CASE WHEN polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
    CASE polcmd
        WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL'
    END,
    (
        SELECT string_agg(CASE role WHEN 0 THEN 'PUBLIC' ELSE role::regrole::text END, ', ')
        FROM unnest(polroles) AS role
    ),
    'USING (' || pg_get_expr(polqual, polrelid) || ')', 'WITH CHECK (' || pg_get_expr(polwithcheck, polrelid) || ')'
)
FROM pg_policy AS p WHERE polrelid = $1::text::regclass
AND NOT EXISTS (SELECT FROM pg_policy AS q WHERE q.polrelid = $2::text::regclass AND q.polname = p.polname)
"""
LIKENESS = """
SELECT
    relname, relowner, relkind, relrowsecurity, relforcerowsecurity,
    ARRAY(
        SELECT ROW(attname, format_type(atttypid, atttypmod), attnotnull)::text FROM pg_attribute
        WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum
    ) AS columns,
    ARRAY(
        SELECT i.relname::text || ' ' || regexp_replace(pg_get_indexdef(indexrelid), '^.* USING', '')
        FROM pg_index JOIN pg_class AS i ON i.oid = indexrelid WHERE indrelid = c.oid AND indisvalid ORDER BY 1
    ) AS indexes,
    ARRAY(
        SELECT ROW(
            polname, polcmd, polpermissive, polroles,
            pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)
        )::text FROM pg_policy WHERE polrelid = c.oid ORDER BY polname
    ) AS policies,
    ARRAY(SELECT acl::text FROM unnest(relacl) AS acl ORDER BY 1) AS grants,
    ARRAY(
        SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
        WHERE conrelid = c.oid AND contype = 'c' ORDER BY 1
    ) AS checks
FROM pg_class AS c WHERE relnamespace = $1::text::regnamespace AND relname = ANY($2)
"""
