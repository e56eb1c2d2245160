"""`relight status` and `status --watch`: of a running service, by whichever way still answers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from observing import frozen
from places import temporary

COMMAND = [sys.executable, "-m", "relight.engine.cli.main"]
FLAT = {
    "status",
    "reasons",
    "position",
    "seq",
    "last_seq",
    "lag_events",
    "lag_s",
    "stood_still_s",
    "moved_at",
    "gaps",
    "missing_events",
    "refused_events",
    "forks",
    "dead_letters",
    "exposed",
    "projector",
    "checks",
}


def environment(home: Path) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RELIGHT_")}
    return plain | {"RELIGHT_HOME": str(home)}


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="relight-status-", dir=temporary()))
    folder.chmod(0o755)
    yield folder / "home"
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def up(home: Path) -> Iterator[dict[str, str]]:
    process = subprocess.Popen([*COMMAND, "up", "--json"], env=environment(home), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        printed = ""
        for line in process.stdout:
            printed += line
            if line == "}\n":
                break
        yield json.loads(printed)
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def status(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, "status", *arguments], env=environment(home), capture_output=True, text=True, timeout=60
    )


@contextmanager
def watching(home: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [*COMMAND, "status", "--watch", "--interval", "0.2", *arguments],
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def line_of(process: "subprocess.Popen[str]", wanted: str, within_s: float = 20) -> dict[str, Any]:
    """The first line with that status."""
    assert process.stdout is not None
    deadline = time.monotonic() + within_s
    for line in process.stdout:
        said: dict[str, Any] = json.loads(line)
        if said["status"] == wanted:
            return said
        assert time.monotonic() < deadline, said
    raise AssertionError(process.stderr.read() if process.stderr else "")


def nats_pid(home: Path) -> int:
    [server] = [
        process.pid
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] == "nats-server" and any(str(home) in word for word in process.info["cmdline"] or ())
    ]
    return server


def test_scripts_read_flat_figures_and_every_check(up: dict[str, str], home: Path) -> None:
    ran = status(home, "--json")
    said = json.loads(ran.stdout)
    assert (ran.returncode, said["status"], said["reasons"]) == (0, "healthy", [])
    assert said.keys() >= FLAT
    assert (said["lag_events"], said["projector"], said["exposed"]["events"]) == (0, "live", 0)
    assert {"postgres", "nats", "stream", "pool", "projector", "spools", "recorder", "fsync", "clock", "disk"} <= {
        check["component"] for check in said["checks"]
    }
    shown = status(home)
    assert shown.stdout.startswith("healthy")
    assert "projection:lagTime" in shown.stdout


def test_a_service_is_asked_by_its_address_alone(up: dict[str, str], home: Path) -> None:
    elsewhere = home.with_name("elsewhere")
    asked = status(elsewhere, "--json", "--url", up["health_url"])
    assert (asked.returncode, json.loads(asked.stdout)["status"]) == (0, "healthy")
    assert not elsewhere.exists(), "no server is started for it"
    yours = environment(elsewhere) | {"RELIGHT_NATS_URL": up["nats_url"], "RELIGHT_DATABASE_URL": up["database_url"]}
    over_nats = subprocess.run([*COMMAND, "status", "--json"], env=yours, capture_output=True, text=True, timeout=60)
    assert json.loads(over_nats.stdout)["projector"] == "live", "the service answered, not a look of the command's own"
    for url, says in (("http://127.0.0.1:1", "does not answer"), ("nonsense", "no address of a service")):
        refused = status(elsewhere, "--url", url)
        assert refused.returncode == 1
        assert says in " ".join(refused.stderr.split())


def test_watching_prints_one_document_a_line_and_ends_with_the_last_status(up: dict[str, str], home: Path) -> None:
    with watching(home, "--json") as process:
        line_of(process, "healthy")
        assert line_of(process, "healthy")["projected_per_s"] == 0
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_watching_goes_on_while_nats_hangs_and_says_so(up: dict[str, str], home: Path) -> None:
    with watching(home, "--json") as process:
        line_of(process, "healthy")
        with frozen(nats_pid(home)):
            said = line_of(process, "unhealthy")
            assert "NATS does not answer" in said["reasons"][0]
            assert status(home).returncode == 1
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 1
    with watching(home) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("healthy"):
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
