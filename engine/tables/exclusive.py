"""One at a time: a rebuild, a rollback or a retention has the tables of a database to itself."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg

from relight.engine.errors import RebuildRefused, Unreachable
from relight.engine.tables.connecting import Session

LOCK = 0x72656C6967687452
"""Advisory lock, `relightR` in ASCII. It belongs to the session, and goes with its process however that ends."""
CHECK_CLIENT_MS = 1_000
WENT_AWAY = (asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError, asyncpg.InterfaceError)

HOLDER = """
SELECT application_name AS name, to_char(backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS since
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND pg_locks.database = (
    SELECT oid FROM pg_database WHERE datname = current_database()
) AND (classid::bigint << 32 | objid::bigint) = $1 AND objsubid = 1
"""


@asynccontextmanager
async def alone(session: Session) -> AsyncIterator[None]:
    """Raises `RebuildRefused`, naming who is at work; from within, `Unreachable` where PostgreSQL went away.

    `session` goes straight to the server and is of nobody else's use.
    """
    with suppress(asyncpg.PostgresError):  # not on every system: then a killed process's lock stays for a statement
        await session.execute(f"SET client_connection_check_interval = {CHECK_CLIENT_MS}")
    if not await session.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):
        holder = await session.fetchrow(HOLDER, LOCK)
        who = f"{holder['name']}, connected since {holder['since'] or '?'} UTC," if holder else "another one"
        raise RebuildRefused(
            f"{who} is rebuilding or trimming these tables: wait for it, or end it, and run this again"
        )
    try:
        yield
    except WENT_AWAY as error:
        raise Unreachable(
            f"PostgreSQL went away ({error}): a swap or a trimming is done wholly or not at all; run this again"
        ) from error
    finally:
        with suppress(*WENT_AWAY):
            await session.execute("SELECT pg_advisory_unlock($1)", LOCK)
