"""Brings a database to this release's migrations: each file once, in order, and never a changed one."""

import hashlib
import logging
import re
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from importlib.resources import files

import asyncpg

from relight.engine.errors import MigrationError
from relight.engine.tables.connecting import Connection

LOCK = 0x72656C69676874
"""Advisory lock that runners take: `relight` in ASCII. It belongs to the transaction, so PgBouncer does not matter."""
WAIT_FOR_RUNNER_S = 600
LOCK_S = 30
STATEMENT_S = 600
OLDEST_SERVER = 15
FILE_NAME = re.compile(r"(\d{3})_\w+\.sql")

log = logging.getLogger(__name__)

CREATE_TABLE = """
CREATE TABLE relight_migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE relight_migrations IS 'Which migration files this database has; written by relight migrate only.';
COMMENT ON COLUMN relight_migrations.version IS 'The number that its file''s name begins with.';
COMMENT ON COLUMN relight_migrations.name IS 'The file''s name.';
COMMENT ON COLUMN relight_migrations.sha256 IS 'SHA-256 of the file as it was applied.';
COMMENT ON COLUMN relight_migrations.applied_at IS 'When.';
GRANT SELECT ON relight_migrations TO PUBLIC;
"""


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One file."""

    version: int
    name: str
    sql: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Applied:
    """A file that a run applied, or in a dry run would apply (`took_s` is 0)."""

    version: int
    name: str
    took_s: float


class State(StrEnum):
    """How a file stands to a database."""

    PENDING = "pending"
    APPLIED = "applied"
    EDITED = "edited"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class MigrationStatus:
    """One file, or one row of the database that this release has no file for (`unknown`)."""

    version: int
    name: str
    state: State
    file_sha256: str | None
    applied_sha256: str | None
    applied_at: datetime | None


@cache
def migrations() -> tuple[Migration, ...]:
    """This release's files, in order."""
    return read(
        (file.name, file.read_bytes())
        for file in files("relight.migrations").iterdir()
        if FILE_NAME.fullmatch(file.name)
    )


def read(contents: Iterable[tuple[str, bytes]]) -> tuple[Migration, ...]:
    """The files of these names and contents, in order; raises `MigrationError` when two have the same number."""
    found: dict[int, Migration] = {}
    for name, content in sorted(contents):
        version = int(name.partition("_")[0])
        if version in found:
            raise MigrationError(f"{found[version].name} and {name} have one number; rename the one not yet released")
        sql = content.decode().replace("\r\n", "\n")  # as Git may check it out: the hash is of the text
        sha256 = hashlib.sha256(sql.encode()).hexdigest()
        found[version] = Migration(version=version, name=name, sql=sql, sha256=sha256)
    return tuple(found.values())


async def migrate(
    connection: Connection,
    *,
    dry_run: bool = False,
    known: Sequence[Migration] | None = None,
    beside_newer: bool = False,
) -> list[Applied]:
    """Applies what is pending, each file in a transaction of its own, and says what that was.

    `beside_newer`: a database that the next release has migrated will do, as while one follows the other both serve.

    Any number may run at once. The login is a superuser, or owns the database and has CREATEROLE or all five roles of
    193_engine.sql and 205_api_tokens.sql. Raises `MigrationError`: an applied file was edited, the database is newer,
    or a file failed; the files before it stay applied, of itself nothing.
    """
    known = migrations() if known is None else known
    server = connection.get_server_version()
    if server.major < OLDEST_SERVER:
        raise MigrationError(f"PostgreSQL {server.major} is too old; upgrade the server to {OLDEST_SERVER} or newer")
    if beside_newer and (newer := _only_newer(known, await _held(connection))):
        log.warning("the database has %s, of a newer release: going on beside it", newer, extra={"action": "newer"})
        return []
    if dry_run:
        return [Applied(version=m.version, name=m.name, took_s=0) for m in _pending(known, await _held(connection))]
    async with _alone(connection, "relight_migrations"):
        if not await _has_table(connection):
            await connection.execute(CREATE_TABLE)
        pending = _pending(known, await _held(connection))
    return [applied for migration in pending if (applied := await _apply(connection, migration, known))]


async def status(connection: Connection, *, known: Sequence[Migration] | None = None) -> list[MigrationStatus]:
    """Every file of this release and every row of the database, by number; changes nothing, and any login may ask."""
    return _compare(migrations() if known is None else known, await _held(connection))


async def _apply(connection: Connection, migration: Migration, known: Sequence[Migration]) -> Applied | None:
    """None: another runner was faster."""
    async with _alone(connection, migration.name, migration.sql):
        if migration not in _pending(known, await _held(connection)):
            return None
        began = time.monotonic()
        login = await connection.fetchrow("SELECT current_setting('role') AS role, pg_current_xact_id()::text AS xact")
        assert login is not None
        await connection.execute(migration.sql, timeout=STATEMENT_S)
        if login["xact"] != await connection.fetchval("SELECT pg_current_xact_id_if_assigned()::text"):
            raise MigrationError(
                f"{migration.name} ends the transaction that it is given: remove its COMMIT or ROLLBACK, "
                f"and look at what it left in the database"
            )
        # Not local: so a file's SET ROLE without LOCAL does not reach the connection's next user either.
        await connection.execute("SELECT set_config('role', $1, false)", login["role"])
        await connection.execute(
            "INSERT INTO relight_migrations (version, name, sha256) VALUES ($1, $2, $3)",
            migration.version,
            migration.name,
            migration.sha256,
        )
    return Applied(version=migration.version, name=migration.name, took_s=time.monotonic() - began)


@asynccontextmanager
async def _alone(connection: Connection, name: str, sql: str = "") -> AsyncIterator[None]:
    """A transaction that runs when no other runner's does; `name` is what an error names."""
    try:
        async with connection.transaction():
            # A login may have tighter timeouts of its own; waiting for another runner is not waiting for a table.
            await connection.execute("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0")
            await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK, timeout=WAIT_FOR_RUNNER_S)
            await connection.execute(
                f"SET LOCAL lock_timeout = '{LOCK_S}s'; SET LOCAL statement_timeout = '{STATEMENT_S}s'"
            )
            yield
    except asyncpg.PostgresError as error:
        raise MigrationError(_explain(name, sql, error)) from error
    except TimeoutError:
        raise MigrationError(
            f"{name}: not done in {STATEMENT_S} s; see in pg_stat_activity what it waits for"
        ) from None
    except (asyncpg.InterfaceError, OSError) as error:
        raise MigrationError(f"{name}: PostgreSQL went away ({error.__context__ or error}); run it again") from error


async def _has_table(connection: Connection) -> bool:
    return await connection.fetchval("SELECT to_regclass('relight_migrations') IS NOT NULL") is True


async def _held(connection: Connection) -> dict[int, asyncpg.Record]:
    if not await _has_table(connection):
        return {}
    rows = await connection.fetch("SELECT version, name, sha256, applied_at FROM relight_migrations ORDER BY version")
    return {row["version"]: row for row in rows}


def _pending(known: Sequence[Migration], held: dict[int, asyncpg.Record]) -> list[Migration]:
    compared = _compare(known, held)
    for file in compared:
        if file.state is State.UNKNOWN:
            raise MigrationError(
                f"the database has {file.name}, which this release does not: it is newer; upgrade relight"
            )
        if file.state is State.EDITED:
            raise MigrationError(
                f"{file.name} was edited after it was applied on {file.applied_at:%Y-%m-%d} (now "
                f"{str(file.file_sha256)[:12]}, then {str(file.applied_sha256)[:12]}): restore it, "
                f"and put the change into a new migration"
            )
    pending = {file.version for file in compared if file.state is State.PENDING}
    return [migration for migration in known if migration.version in pending]


def _only_newer(known: Sequence[Migration], held: dict[int, asyncpg.Record]) -> str:
    """The newest file that this release does not have, where it lacks nothing that this release has."""
    compared = _compare(known, held)
    if any(file.state in (State.PENDING, State.EDITED) for file in compared):
        return ""
    return next((file.name for file in reversed(compared) if file.state is State.UNKNOWN), "")


def _compare(known: Sequence[Migration], held: dict[int, asyncpg.Record]) -> list[MigrationStatus]:
    by_version = {migration.version: migration for migration in known}
    compared = []
    for version in sorted(by_version.keys() | held.keys()):
        file, row = by_version.get(version), held.get(version)
        if file is None:
            state = State.UNKNOWN
        elif row is None:
            state = State.PENDING
        else:
            state = State.APPLIED if row["sha256"] == file.sha256 else State.EDITED
        compared.append(
            MigrationStatus(
                version=version,
                name=file.name if file else held[version]["name"],
                state=state,
                file_sha256=file.sha256 if file else None,
                applied_sha256=row["sha256"] if row else None,
                applied_at=row["applied_at"] if row else None,
            )
        )
    return compared


def _explain(name: str, sql: str, error: asyncpg.PostgresError) -> str:
    position = str(error.position or "")
    line = f", line {sql.count(chr(10), 0, int(position) - 1) + 1}" if sql and position.isdigit() else ""
    said = ". ".join(part.rstrip(".") for part in (error.message, error.detail, error.hint) if part)
    match error:
        case asyncpg.InsufficientPrivilegeError():
            advice = (
                "run it as the owner of the database with CREATEROLE, or have a superuser GRANT relight_owner, "
                "relight_projector, relight_reader, relight_operator, relight_gate to that login"
            )
        case asyncpg.LockNotAvailableError():
            advice = f"somebody holds the table for more than {LOCK_S} s: see pg_stat_activity, and run it again"
        case _:
            advice = "correct it and run it again; the files before it stay applied, of this one nothing"
    return f"{name}{line}: {said or type(error).__name__}; {advice}"
