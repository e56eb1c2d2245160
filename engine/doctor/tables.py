"""PostgreSQL: reached as requests and the projector reach it, durable, patient enough, and migrated."""

import asyncio
import time
from contextlib import AsyncExitStack

import asyncpg

from relight.engine.doctor.log import offset
from relight.engine.doctor.models import Finding, fail, ok, warn
from relight.engine.doctor.patient import Patient
from relight.engine.tables.connecting import Session
from relight.engine.tables.migrate import OLDEST_SERVER, State, status

OWN_CONNECTIONS = 3
"""Besides the pool: the projector's, health's, and one to spare for commands."""
MARK = "relight.doctor"


async def postgres(patient: Patient) -> Finding:
    patient.login = session = await patient.openers.postgres(patient.servers.database_url, {})
    patient.stack.push_async_callback(_closed, session)
    began = time.monotonic()
    row = await session.fetchrow("SELECT current_user AS login, current_database() AS database, version() AS version")
    took_ms = (time.monotonic() - began) * 1_000
    assert row is not None
    major = session.get_server_version().major
    found = f"{' '.join(row['version'].split()[:2])}, database {row['database']} as {row['login']}, {took_ms:.1f} ms"
    if major < OLDEST_SERVER:
        return fail(found, f"upgrade the server to {OLDEST_SERVER} or newer")
    return ok(found)


async def _closed(session: Session) -> None:
    """Whatever the server does: what was found is told all the same."""
    try:
        await session.close(timeout=2)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        session.terminate()


async def session(patient: Patient) -> Finding:
    """A parameter of the connection's start reaches a server, and not a PgBouncer before it."""
    advice = "set RELIGHT_DATABASE_URL to the server's own address where the projector runs; requests may go through it"
    try:
        own = await patient.openers.postgres(patient.servers.database_url, {MARK: patient.tag})
    except Exception as error:
        if "startup parameter" not in f"{error} {error.__cause__}":
            raise
        return fail("this is a PgBouncer, which a projector cannot use", advice)
    try:
        marked = await own.fetchval("SELECT current_setting($1, true)", MARK)
    finally:
        await _closed(own)
    if marked != patient.tag:
        return fail("a connection's parameters do not reach the server: a pooler stands between", advice)
    return ok("the server's own address: sessions keep their role")


async def clock(patient: Patient) -> Finding:
    began, began_us = time.monotonic(), patient.clock.now_us()
    there_us = await patient.session.fetchval("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
    took_us = (time.monotonic() - began) * 1_000_000
    return offset("PostgreSQL", (there_us - began_us - took_us / 2) / 1_000, took_us / 1_000)


async def durability(patient: Patient) -> Finding:
    names = ("fsync", "full_page_writes", "synchronous_commit")
    held = {name: await patient.session.fetchval("SELECT current_setting($1)", name) for name in names}
    found = ", ".join(f"{name} {value}" for name, value in held.items())
    if "off" in (held["fsync"], held["full_page_writes"]):
        return fail(found, "switch both on: a power cut may leave a database that has to be rebuilt from the stream")
    if held["synchronous_commit"] == "off":
        return warn(found, "switch it on: what was called projected may be projected once more after a crash")
    return ok(found)


async def timeouts(patient: Patient) -> Finding:
    """Cancelling works, and the server's own timeouts do not undercut ours."""
    session, settings = patient.session, patient.settings
    try:
        async with session.transaction():
            await session.execute("SELECT set_config('statement_timeout', '50ms', true)")
            await session.execute("SELECT pg_sleep(2)")
        return fail("a statement ran on beyond its timeout", "is that a PostgreSQL server?")
    except asyncpg.QueryCanceledError:
        pass
    limits_s = {
        "statement_timeout": settings.session_statement_timeout_s,
        "transaction_timeout": settings.session_statement_timeout_s,
        "idle_session_timeout": float("inf"),
    }
    held = await session.fetch(
        "SELECT name, setting::bigint AS ms FROM pg_settings WHERE name = ANY($1) AND setting <> '0'", list(limits_s)
    )
    short = [f"{row['name']} {row['ms']} ms" for row in held if row["ms"] / 1_000 < limits_s[row["name"]]]
    if short:
        return warn(f"the server ends sessions sooner than we would: {', '.join(short)}", "ALTER ROLE … SET it to 0")
    return ok("a statement was cancelled after 50 ms; the server has no shorter timeouts than ours")


async def connections(patient: Patient) -> Finding:
    """So many as the pool may have, held at the same time."""
    row = await patient.session.fetchrow(
        "SELECT current_setting('max_connections')::int AS most,"
        " current_setting('superuser_reserved_connections')::int AS reserved, count(*)::int AS used"
        " FROM pg_stat_activity WHERE backend_type = 'client backend'"
    )
    assert row is not None
    needed = patient.settings.pool_size + OWN_CONNECTIONS
    found = f"{needed} needed for a process, {row['used']} in use, max_connections {row['most']}"
    advice = "raise max_connections, or lower RELIGHT_POOL_SIZE"
    if needed > row["most"] - row["reserved"]:
        return fail(found, advice)
    if needed > row["most"] - row["reserved"] - row["used"]:
        return warn(found, advice)
    async with await patient.openers.pool(patient.servers.database_url) as pool, AsyncExitStack() as stack:
        held = [stack.enter_async_context(pool.acquire()) for _ in range(patient.settings.pool_size)]
        await asyncio.gather(*(connection.fetchval("SELECT 1") for connection in await asyncio.gather(*held)))
    return ok(f"{found}; a pool of {patient.settings.pool_size} was filled")


async def migrations(patient: Patient) -> Finding:
    files = await status(patient.session)
    by_state = {state: [file.name for file in files if file.state is state] for state in State}
    if edited := by_state[State.EDITED]:
        return fail(f"edited after they were applied: {', '.join(edited)}", "restore those files")
    if pending := by_state[State.PENDING]:
        return fail(f"not applied: {', '.join(pending)}", "run `relight migrate`")
    if newer := by_state[State.UNKNOWN]:
        return warn(f"newer than this release: {', '.join(newer)}", "upgrade relight")
    return ok(f"{len(files)} applied, none edited")
