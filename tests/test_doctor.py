"""The doctor: a good installation is well, and faults of settings, places and addresses are told at once."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import examining
import stack
from examining import OF_NATS, OF_POSTGRES, assert_only, examined, settings_of
from observing import recorded
from places import temporary
from stack import connected, nats_server, projecting

from relight.engine.doctor.examine import STEPS
from relight.engine.doctor.models import Outcome
from relight.engine.doctor.settings import CHECKED_BY
from relight.engine.embedded.postgres import EmbeddedPostgres
from relight.engine.settings import Settings
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.digest import digest_postgres
from relight.engine.tables.migrate import migrate

house = examining.house


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
