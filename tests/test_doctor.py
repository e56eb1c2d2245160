"""The doctor: all is well on a good installation, each fault is named with what to do, and nothing is left behind."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import stack
from nats.js.api import StreamConfig
from observing import recorded
from places import temporary
from stack import connected, nats_server, projecting

from relight.engine.app.looking import examine_installation
from relight.engine.doctor.examine import STEPS
from relight.engine.doctor.models import Outcome, Report, Result
from relight.engine.doctor.settings import CHECKED_BY
from relight.engine.embedded.binaries import nats_server as nats_binary
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.embedded.ports import free_port
from relight.engine.embedded.postgres import EmbeddedPostgres
from relight.engine.log.topology import connect
from relight.engine.proving.answering import answering
from relight.engine.proving.building import polling_prober
from relight.engine.servers import Servers
from relight.engine.settings import Settings
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.digest import digest_postgres
from relight.engine.tables.migrate import migrate

NOT_HERE = {"durability"}
"""The tests' PostgreSQL does not fsync."""


def settings_of(nats: EmbeddedNats, database: str, home: Path, **changes: str) -> dict[str, str]:
    given = {
        "RELIGHT_NATS_URL": nats.url,
        "RELIGHT_NATS_MONITOR_URLS": nats.monitor_url,
        "RELIGHT_DATABASE_URL": database,
        "RELIGHT_HOME": str(home),
    }
    return {name: value for name, value in (given | changes).items() if value}


async def examined(environment: dict[str, str]) -> tuple[Report, dict[str, Result]]:
    report = await examine_installation(environment=environment)
    return report, {result.check: result for result in report.results}


def assert_only(results: dict[str, Result], *bad: str, skipped: tuple[str, ...] = ()) -> None:
    """Nothing else is blamed; what depends on them is skipped."""
    wrong = {name for name, result in results.items() if result.outcome in (Outcome.FAIL, Outcome.WARN)}
    assert wrong - NOT_HERE == set(bad), {name: results[name].found for name in wrong}
    assert {name for name, result in results.items() if result.outcome is Outcome.SKIPPED} == set(skipped)
    assert all(results[name].advice for name in wrong)


@pytest.fixture
def house() -> Iterator[Path]:
    with stack.folder() as folder:
        home = folder / "home"
        home.mkdir(mode=0o700)
        yield home


async def _traces(client: Any, database: str, home: Path) -> object:
    """All that an examination could have changed."""
    session = await connect_session(database, role="relight_projector")
    digest = await digest_postgres(session)
    heads = await session.fetch("SELECT * FROM publisher_heads ORDER BY 1")
    await session.close()
    js = client.jetstream()
    streams = sorted((info.config.name, info.state.messages, info.state.last_seq) for info in await js.streams_info())
    return digest, [tuple(row) for row in heads], streams, sorted(map(str, home.rglob("*")))


async def test_a_good_installation_is_well_in_every_respect_and_left_as_it_was(house: Path) -> None:
    with stack.folder() as folder:
        async with EmbeddedPostgres(folder) as postgres, nats_server() as nats:
            login = await asyncpg.connect(postgres.url)
            await migrate(login)
            await login.close()
            async with projecting(nats, postgres.url) as work:
                await recorded(nats, 20)
                await work.caught_up()
            async with connected(nats) as client:
                before = await _traces(client, postgres.url, house)
                report, results = await examined(settings_of(nats, postgres.url, house))
                assert [result.found for result in report.results if result.outcome is not Outcome.OK] == [
                    "none answers; start one with `relight up`"
                ]
                assert (report.percent, report.passes(strict=True)) == (100, True)
                assert set(results) == {step.name for step in STEPS}
                assert await _traces(client, postgres.url, house) == before
            shown = report.model_dump_json()
            assert "relight:" not in shown.replace("relight:eu", ""), "no user and password"
            for secret in (nats.url.split("@")[0].split(":")[-1], postgres.url.split("@")[0].split(":")[-1]):
                assert secret not in shown


def test_every_setting_is_named_with_the_step_that_uses_it() -> None:
    assert CHECKED_BY.keys() <= Settings.model_fields.keys()
    assert set(CHECKED_BY.values()) <= {step.name for step in STEPS}


async def test_all_faults_of_the_settings_are_told_at_once_and_nothing_is_touched(house: Path) -> None:
    report, results = await examined(
        {"RELIGHT_HOME": str(house), "RELIGHT_REGON": "eu", "RELIGHT_POOL_SIZE": "many", "RELIGHT_DRAIN_S": "-1"}
    )
    for variable in ("RELIGHT_REGON", "RELIGHT_POOL_SIZE", "RELIGHT_DRAIN_S"):
        assert variable in results["settings"].found
    assert report.count(Outcome.SKIPPED) == len(STEPS) - 1
    assert (report.percent, report.passes()) == (0, False)
    assert list(house.iterdir()) == []


async def test_half_a_pair_of_servers_is_a_fault_of_the_settings(house: Path) -> None:
    _, results = await examined({"RELIGHT_HOME": str(house), "RELIGHT_NATS_URL": "nats://127.0.0.1:1"})
    assert "RELIGHT_DATABASE_URL is not set" in results["settings"].found


OF_POSTGRES = (
    "session",
    "postgres_clock",
    "durability",
    "timeouts",
    "connections",
    "migrations",
    "roles",
    "row_security",
    "tenancy",
)
OF_NATS = ("jetstream", "nats_clock", "stream", "publish", "content", "fsync")


async def test_wrong_passwords_are_told_apart_and_not_shown(database: str, house: Path) -> None:
    async with nats_server() as nats:
        async with connected(nats):
            environment = settings_of(nats, database.replace("postgres:", "postgres:wrong", 1), house)
            _, results = await examined(environment)
            assert_only(results, "postgres", skipped=OF_POSTGRES)
            assert "refuses the password" in results["postgres"].found + str(results["postgres"].advice)
            environment = settings_of(nats, database, house)
            environment["RELIGHT_NATS_URL"] = nats.url.replace("relight:", "relight:wrong", 1)
            report, results = await examined(environment)
            assert_only(results, "nats", skipped=OF_NATS)
            assert "refuses the credentials" in results["nats"].found
            assert "wrong" not in report.model_dump_json()


@asynccontextmanager
async def _nats_configured(config: str) -> AsyncIterator[tuple[str, str]]:
    """A server of this configuration; its URL and monitoring address."""
    with stack.folder() as folder:
        port, monitor = free_port(), free_port()
        file = folder / "conf"
        listening = f'listen: "127.0.0.1:{port}"\nhttp: "127.0.0.1:{monitor}"\n'
        file.write_text(listening + config.replace("STORE", str(folder)))
        process = subprocess.Popen(
            [str(nats_binary()), "-c", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:

            async def answers() -> bool:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    return False
                writer.close()
                return True

            await stack.until(answers)
            yield f"127.0.0.1:{port}", f"http://127.0.0.1:{monitor}"
        finally:
            process.terminate()
            process.wait(20)


async def test_a_nats_without_jetstream_says_so(database: str, house: Path) -> None:
    async with nats_server() as unused, _nats_configured("") as (address, monitor):
        environment = settings_of(unused, database, house) | {
            "RELIGHT_NATS_URL": f"nats://{address}",
            "RELIGHT_NATS_MONITOR_URLS": monitor,
        }
        _, results = await examined(environment)
        assert_only(results, "jetstream", skipped=OF_NATS[1:])
        assert "turn it on" in str(results["jetstream"].advice)


async def test_a_login_that_may_not_make_streams_is_warned_of_and_everything_else_is_tried(
    database: str, house: Path
) -> None:
    config = """
jetstream { store_dir: "STORE", sync_interval: always }
authorization { users = [
  { user: all, password: all }
  { user: few, password: few, permissions { publish { deny: ["$JS.API.STREAM.CREATE.>"] } } }
] }
"""
    async with nats_server() as unused, _nats_configured(config) as (address, monitor):
        client = await connect(f"nats://all:all@{address}", name="test")
        await stack.ensure_stream(client.jetstream())
        await client.close()
        environment = settings_of(unused, database, house) | {
            "RELIGHT_NATS_URL": f"nats://few:few@{address}",
            "RELIGHT_NATS_MONITOR_URLS": monitor,
        }
        _, results = await examined(environment)
        assert_only(results, "publish", "content")
        assert "permissions violation" in results["publish"].found.lower()
        assert "allow this login" in str(results["publish"].advice)


async def test_servers_that_do_not_fsync_fail_and_unknown_ones_are_warned_of(database: str, house: Path) -> None:
    async with nats_server(sync_always=False) as nats, connected(nats) as client:
        report, results = await examined(settings_of(nats, database, house))
        assert_only(results, "fsync")
        assert results["fsync"].outcome is Outcome.FAIL
        assert "sync_interval: always" in results["fsync"].found
        assert results["durability"].outcome is Outcome.FAIL
        assert "fsync off" in results["durability"].found
        assert not report.passes()

        await client.jetstream().delete_stream("EV")
        await client.jetstream().add_stream(config=StreamConfig(name="EV", subjects=["ev.>"]))
        _, results = await examined(settings_of(nats, database, house, RELIGHT_NATS_MONITOR_URLS=""))
        assert_only(results, "stream", skipped=("fsync",))
        assert "discard is not new" in results["stream"].found

        await client.jetstream().delete_stream("EV")
        await stack.ensure_stream(client.jetstream())
        _, results = await examined(settings_of(nats, database, house, RELIGHT_NATS_MONITOR_URLS=""))
        assert_only(results, "fsync")
        assert results["fsync"].outcome is Outcome.WARN


async def test_what_is_proven_is_told_with_who_said_so_and_who_could_say_so_falsely(database: str, house: Path) -> None:
    async with nats_server() as nats, connected(nats) as client:
        system = {"RELIGHT_NATS_SYSTEM_URL": nats.system_url, "RELIGHT_NATS_MONITOR_URLS": ""}
        _, results = await examined(settings_of(nats, database, house, **system))
        assert_only(results)
        assert "proven here (system account) for relight (2." in results["fsync"].found
        assert "no service's prober answers others yet" in results["fsync"].found
        assert "as trustworthy as everybody who has it" in results["fsync"].found

        wrong = system | {"RELIGHT_NATS_SYSTEM_URL": nats.system_url.replace("system:", "system:wrong", 1)}
        report, results = await examined(settings_of(nats, database, house, **wrong))
        assert_only(results, "fsync")
        assert "RELIGHT_NATS_SYSTEM_URL" in results["fsync"].found
        assert "wrong" not in report.model_dump_json()

        servers = Servers(nats=nats.url, monitors=(), database=None, ours=False, system=nats.system_url)
        prober = polling_prober(client, servers, ttl_s=60, name="relight:eu:there:1")
        assert prober is not None
        async with answering(client, prober):
            agents = {"RELIGHT_NATS_URL": nats.agent_url, "RELIGHT_NATS_MONITOR_URLS": ""}
            _, results = await examined(settings_of(nats, database, house, **agents))
        assert_only(results)
        assert "proven by relight:eu:there:1" in results["fsync"].found
        assert "this login cannot answer in a prober's place" in results["fsync"].found


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


async def test_a_home_that_cannot_be_written_and_an_address_that_is_taken_or_open_to_all(
    database: str, house: Path
) -> None:
    async with nats_server() as nats, connected(nats):
        with closing(socket.create_server(("127.0.0.1", 0))) as taken:
            port = str(taken.getsockname()[1])
            environment = settings_of(nats, database, Path("/proc/relight"), RELIGHT_HTTP_PORT=port)
            _, results = await examined(environment)
            assert_only(results, "home", "http", skipped=("disk", "spool"))
            assert "set RELIGHT_HOME" in str(results["home"].advice)
            assert "cannot be listened on" in results["http"].found
        _, results = await examined(settings_of(nats, database, house, RELIGHT_HTTP_HOST="0.0.0.0"))
        assert_only(results, "http")
        assert "without TLS" in results["http"].found
        assert results["http"].outcome is Outcome.WARN, "a warning is allowed, but for --strict"
        report, results = await examined(settings_of(nats, database, house, RELIGHT_SPOOL="false"))
        assert results["spool"].outcome is Outcome.INAPPLICABLE
        assert report.applicable == len(STEPS) - 2


async def test_servers_that_are_away_fail_soon_and_each_by_itself(house: Path) -> None:
    began = time.monotonic()
    _, results = await examined(
        {
            "RELIGHT_HOME": str(house),
            "RELIGHT_NATS_URL": "nats://127.0.0.1:1",
            "RELIGHT_DATABASE_URL": "postgresql://a:b@127.0.0.1:1/c",
        }
    )
    assert_only(results, "nats", "postgres", skipped=(*OF_NATS, *OF_POSTGRES))
    assert time.monotonic() - began < 15


def test_the_command_examines_a_new_home_and_a_running_one() -> None:
    folder = Path(tempfile.mkdtemp(prefix="relight-doctor-", dir=temporary()))
    folder.chmod(0o755)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RELIGHT_")}
    environment = plain | {"RELIGHT_HOME": str(folder / "home")}
    command = [sys.executable, "-m", "relight.engine.cli.main"]

    def doctor() -> tuple[int, dict[str, Any]]:
        ran = subprocess.run(
            [*command, "doctor", "--json", "--strict"], env=environment, capture_output=True, text=True, timeout=60
        )
        assert ran.stdout, ran.stderr
        return ran.returncode, json.loads(ran.stdout)

    try:
        code, said = doctor()
        assert (code, said["percent"], said["inapplicable"]) == (0, 100, 1), said
        up = subprocess.Popen([*command, "up", "--json"], env=environment, stdout=subprocess.PIPE, text=True)
        try:
            assert up.stdout is not None
            for line in up.stdout:
                if line == "}\n":
                    break
            code, said = doctor()
            assert (code, said["percent"], said["inapplicable"]) == (0, 100, 0), said
            assert "is healthy" in next(c["found"] for c in said["checks"] if c["check"] == "service")
            warned = environment | {"RELIGHT_HTTP_HOST": "0.0.0.0"}
            shown = subprocess.run([*command, "doctor"], env=warned, capture_output=True, text=True, timeout=60)
            assert (shown.returncode, "23 of 24 checks are ok: 95 %" in shown.stdout) == (0, True), shown.stdout
        finally:
            up.terminate()
            up.wait(30)
            up.stdout.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
