"""The commands, as a person or a script runs them: real processes, real servers."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nats
import psutil
import pytest
from places import temporary

from relight.engine.log.topology import connect
from relight.engine.proving.asking import Attestations

START_S = 30.0
Relight = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A folder that PostgreSQL's user can enter when root runs the tests."""
    folder = Path(tempfile.mkdtemp(prefix="relight-cli-", dir=temporary()))
    folder.chmod(0o755)
    yield folder / "home"
    shutil.rmtree(folder, ignore_errors=True)


def _environment(home: Path, **settings: str) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RELIGHT_")}
    return plain | {"RELIGHT_HOME": str(home)} | settings


@pytest.fixture(scope="module")
def relight(home: Path) -> Relight:
    """`relight("status", "--json", RELIGHT_X="…")`"""

    def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "relight.engine.cli.main", *arguments],
            env=_environment(home, **settings),
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )

    return run


@contextmanager
def _up(home: Path, **settings: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "relight.engine.cli.main", "up", "--json"],
        env=_environment(home, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        printed = ""
        for line in process.stdout:
            printed += line
            if line == "}\n":
                break
        assert printed, process.stderr.read() if process.stderr else ""
        yield process, json.loads(printed)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def up(home: Path) -> Iterator[dict[str, str]]:
    with _up(home) as (_, addresses):
        yield addresses


def _get(url: str, method: str = "GET") -> tuple[int, bytes]:
    request = urllib.request.Request(url, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def _observed(up: dict[str, str], check: str) -> object:
    """The value of a check of `/health`."""
    return json.loads(_get(up["health_url"])[1])["checks"][check][0]["observedValue"]


async def _until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.05)


def test_up_prints_its_addresses_and_is_healthy(up: dict[str, str], relight: Relight) -> None:
    status, body = _get(up["health_url"])
    assert status == 200
    assert json.loads(body)["status"] == "pass"
    assert _get(up["health_url"], "HEAD") == (200, b"")
    assert _get(up["health_url"].replace("/health", "/secrets"))[0] == 404
    shown = relight("status", "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["status"] == "healthy"


async def test_others_of_a_running_home_are_told_what_is_proven_but_not_how_to_ask(up: dict[str, str]) -> None:
    assert "nats://agent:" in up["nats_url"]
    assert not [address for address in up.values() if "system" in str(address)]
    client = await connect(up["nats_url"], name="test")
    found = await Attestations(client, ttl_s=60).attest()
    assert (found.proven, found.source) == (True, "system account")
    assert str(found.prober).startswith("relight:")
    await client.close()


async def test_a_message_that_is_no_event_is_counted_shown_and_stays_dead(up: dict[str, str], relight: Relight) -> None:
    client = await nats.connect(up["nats_url"])
    acknowledgement = await client.jetstream().publish("ev.eu.breakers.acme.failed", b"garbage")
    await client.close()
    seq = str(acknowledgement.seq)
    await _until(lambda: _observed(up, "projection:deadLetters") == 1)
    status, body = _get(up["health_url"])
    assert (status, json.loads(body)["status"]) == (200, "warn")
    assert json.loads(relight("status", "--json").stdout)["dead_letters"] == 1

    listed = json.loads(relight("deadletter", "list", "--json").stdout)
    assert [(row["seq"], row["reason"]) for row in listed] == [(acknowledgement.seq, "not_an_event")]
    assert "garbage" in relight("deadletter", "show", seq).stdout
    assert relight("deadletter", "show", "999999").returncode == 1
    retried = relight("deadletter", "retry", seq, "--json")
    assert (retried.returncode, json.loads(retried.stdout)) == (1, {"resolved": 0, "still_dead": 1})
    assert json.loads(relight("event", "count", "--json").stdout)["types"]["(not_an_event)"] == 1


def test_events_are_recorded_found_and_queried_by_other_processes(
    up: dict[str, str], home: Path, relight: Relight
) -> None:
    code = """
import relight
from relight.events.breakers import BreakerFailed
with relight.open_sync(region="eu", tenant="acme") as r:
    receipt = r.record(BreakerFailed(service_name="crm", error_class="Timeout"))
    receipt.wait(relight.Ack.REPLICATED)
    [row] = r.query("breakers.history", after=receipt, service="crm")
    print(row.event_id)
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], env=_environment(home), capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    event_id = ran.stdout.strip()

    shown = json.loads(relight("event", "show", event_id, "--json").stdout)
    assert (shown["event"]["id"], shown["event"]["tenant"]) == (event_id, "acme")
    assert event_id in relight("event", "tail", "--last", "5").stdout
    assert relight("event", "show", "00000000-0000-7000-8000-000000000000").returncode == 1

    asked = relight("query", "breakers.history", "service=crm", "--tenant", "acme", "--json")
    assert [row["event_id"] for row in json.loads(asked.stdout)] == [event_id]
    others = relight("query", "breakers.history", "service=crm", "--tenant", "umbrella", "--json")
    assert json.loads(others.stdout) == []


def test_both_stores_have_one_digest(up: dict[str, str], relight: Relight) -> None:
    postgres = json.loads(relight("digest", "--json").stdout)
    memory = json.loads(relight("digest", "--store", "memory", "--json").stdout)
    assert len(postgres["tables"]) == 20
    assert (postgres["seq"], postgres["deadletters"], postgres["tables"]) == (
        memory["seq"],
        memory["deadletters"],
        memory["tables"],
    )


def test_a_digest_at_a_sequence_is_stated_with_the_message_there(up: dict[str, str], relight: Relight) -> None:
    last = json.loads(relight("digest", "--store", "memory", "--json").stdout)
    at = json.loads(relight("digest", "--store", "memory", "--at", "2", "--json").stdout)
    assert last["seq"] > 2
    assert (at["seq"], at["position"].split(":")[:2]) == (2, ["-", "2"])
    assert at["position"].split(":")[2] != last["position"].split(":")[2]
    again = json.loads(relight("digest", "--store", "memory", "--at", "2", "--json").stdout)
    assert (again["position"], again["tables"]) == (at["position"], at["tables"])
    assert relight("digest", "--at", "2").returncode == 2


def test_queries_are_listed_with_what_they_take(relight: Relight) -> None:
    listed = json.loads(relight("query", "--json").stdout)
    by_subsystem: dict[str, int] = {}
    for query in listed:
        subsystem = query["name"].partition(".")[0]
        by_subsystem[subsystem] = by_subsystem.get(subsystem, 0) + 1
    assert len(by_subsystem) == 10
    assert min(by_subsystem.values()) >= 2
    assert "breakers.open_now" in relight("query").stdout


@pytest.mark.parametrize(
    ("arguments", "settings", "says"),
    [
        (["status"], {"RELIGHT_REGON": "eu"}, "RELIGHT_REGON is no setting"),
        (["status"], {"RELIGHT_HTTP_PORT": "many"}, "RELIGHT_HTTP_PORT is invalid"),
        (
            ["status"],
            {"RELIGHT_NATS_URL": "nats://127.0.0.1:1", "RELIGHT_DATABASE_URL": "postgresql://x:y@127.0.0.1:1/z"},
            "NATS at 127.0.0.1:1 does not answer",
        ),
        (["query", "breakers.open_nwo"], {}, "did you mean"),
        (["query", "tasks.migrations"], {}, "needs task"),
        (["query", "tasks.migrations", "t-1"], {}, "give it as name=value"),
    ],
)
def test_a_mistake_is_one_sentence_and_what_to_do(
    arguments: list[str], settings: dict[str, str], says: str, relight: Relight
) -> None:
    ran = relight(*arguments, **settings)
    assert ran.returncode == 1
    assert says in " ".join(ran.stderr.split())
    assert "Traceback" not in ran.stderr


def test_a_wrong_password_says_so_and_does_not_show_it(up: dict[str, str], relight: Relight) -> None:
    database = up["database_url"].replace("postgres:", "postgres:wrong", 1)
    ran = relight("digest", RELIGHT_NATS_URL=up["nats_url"], RELIGHT_DATABASE_URL=database)
    assert (ran.returncode, "Traceback" in ran.stderr) == (1, False)
    assert "RELIGHT_DATABASE_URL" in ran.stderr
    assert "wrong" not in ran.stderr
    refused = relight("event", "count", RELIGHT_NATS_URL=up["nats_url"].replace("agent:", "agent:wrong", 1))
    assert refused.returncode == 1
    assert "refuses the credentials" in " ".join(refused.stderr.split())


def test_migrate_is_a_no_op_on_a_database_that_is_up_to_date(up: dict[str, str], relight: Relight) -> None:
    assert json.loads(relight("migrate", "--json").stdout) == {"dry_run": False, "applied": []}
    states = {row["state"] for row in json.loads(relight("migrate", "--status", "--json").stdout)}
    assert states == {"applied"}


def test_up_projects_for_servers_of_yours_and_starts_none(up: dict[str, str], home: Path, relight: Relight) -> None:
    other = home.with_name("other")
    yours = {"RELIGHT_NATS_URL": up["nats_url"], "RELIGHT_DATABASE_URL": up["database_url"]}
    with _up(other, **yours) as (process, addresses):
        assert _get(addresses["health_url"])[0] == 200
        assert psutil.Process(process.pid).children(recursive=True) == []
        process.terminate()
        assert process.wait(20) == 0


def test_only_one_up_serves_a_home(up: dict[str, str], relight: Relight) -> None:
    second = relight("up")
    assert second.returncode == 1
    assert "already serves" in " ".join(second.stderr.split())


async def test_health_says_503_while_postgres_does_not_answer_and_recovers() -> None:
    folder = Path(tempfile.mkdtemp(prefix="relight-cli-", dir=temporary()))
    folder.chmod(0o755)
    try:
        with _up(folder / "home") as (_, addresses):
            pid_file = next((folder / "home").rglob("postmaster.pid"))
            postmaster = psutil.Process(int(pid_file.read_text().splitlines()[0]))
            frozen = [postmaster, *postmaster.children(recursive=True)]
            for process in frozen:
                process.suspend()
            try:
                await _until(lambda: _get(addresses["health_url"])[0] == 503)
                assert "PostgreSQL" in " ".join(json.loads(_get(addresses["health_url"])[1])["notes"])
            finally:
                for process in frozen:
                    process.resume()
            await _until(lambda: _get(addresses["health_url"])[0] == 200)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("command", [["status"], ["event", "count"], ["digest", "--store", "memory"]])
def test_a_new_home_is_healthy_and_empty(command: list[str], relight: Relight) -> None:
    folder = Path(tempfile.mkdtemp(prefix="relight-cli-", dir=temporary()))
    folder.chmod(0o755)
    try:
        ran = relight(*command, "--json", RELIGHT_HOME=str(folder / "home"))
        assert ran.returncode == 0, ran.stderr
        json.loads(ran.stdout)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_nothing_outlives_up(stop: signal.Signals) -> None:
    folder = Path(tempfile.mkdtemp(prefix="relight-cli-", dir=temporary()))
    folder.chmod(0o755)
    try:
        with _up(folder / "home") as (process, _):
            family = psutil.Process(process.pid).children(recursive=True)
            assert {"nats-server", "postgres"} <= {child.name() for child in family}
            process.send_signal(stop)
            process.wait(20)
            if stop is not signal.SIGKILL:
                assert process.returncode == 0
            _, alive = psutil.wait_procs(family, timeout=15)
            assert alive == []
    finally:
        shutil.rmtree(folder, ignore_errors=True)
