"""The doctor at PostgreSQL: tables that are missing, rights, poolers, timeouts."""

import os
from collections.abc import Callable
from pathlib import Path

import asyncpg
import examining
from examining import assert_only, examined, settings_of
from stack import connected, nats_server

from relight.engine.doctor.models import Outcome

house = examining.house


async def test_a_database_that_was_not_migrated(postgres: str, house: Path) -> None:
    async with nats_server() as nats, connected(nats):
        _, results = await examined(settings_of(nats, postgres, house))
        assert_only(results, "migrations", skipped=("roles", "row_security", "tenancy"))
        assert "relight migrate" in str(results["migrations"].advice)


async def test_row_level_security_that_somebody_switched_off_is_found_and_proven_by_a_row(
    database: str, house: Path
) -> None:
    login = await asyncpg.connect(database)
    async with nats_server() as nats, connected(nats):
        await login.execute("ALTER TABLE task_assignments NO FORCE ROW LEVEL SECURITY")
        _, results = await examined(settings_of(nats, database, house))
        assert_only(results, "row_security")
        assert results["row_security"].found == "task_assignments is not under forced row-level security"
        await login.execute("ALTER TABLE task_assignments FORCE ROW LEVEL SECURITY")
        await login.execute("CREATE POLICY wide ON circuit_breaker_events FOR SELECT TO relight_reader USING (true)")
        _, results = await examined(settings_of(nats, database, house))
        assert_only(results, "row_security", "tenancy")
        assert "another tenant saw the row" in results["tenancy"].found
        assert await login.fetchval("SELECT count(*) FROM circuit_breaker_events") == 0
    await login.close()


async def test_a_login_that_may_not_become_the_roles(database: str, house: Path, at: Callable[..., str]) -> None:
    login = await asyncpg.connect(database)
    name = f"test_weak_{os.getpid()}"
    await login.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{name}'")
    try:
        async with nats_server() as nats, connected(nats):
            _, results = await examined(settings_of(nats, at(database, user=name), house))
            assert_only(results, "roles", skipped=("tenancy",))
            assert "may not become relight_projector" in results["roles"].found
    finally:
        await login.execute(f"DROP ROLE {name}")
        await login.close()


async def test_a_pgbouncer_is_no_place_for_a_projector(
    database: str, house: Path, pgbouncer: Callable[[str, tuple[str, ...]], str]
) -> None:
    through = pgbouncer(database, ())
    async with nats_server() as nats, connected(nats):
        _, results = await examined(settings_of(nats, through, house))
        assert_only(results, "session")
        assert "server's own address" in str(results["session"].advice)


async def test_timeouts_and_connections_that_are_too_few(database: str, house: Path) -> None:
    login = await asyncpg.connect(database)
    name = await login.fetchval("SELECT current_database()")
    await login.execute(f"ALTER DATABASE {name} SET idle_session_timeout = '1min'")
    await login.close()
    async with nats_server() as nats, connected(nats):
        _, results = await examined(settings_of(nats, database, house, RELIGHT_POOL_SIZE="500"))
        assert_only(results, "timeouts", "connections")
        assert "idle_session_timeout 60000 ms" in results["timeouts"].found
        assert results["connections"].outcome is Outcome.FAIL
