"""RELIGHT_HOME: one process serves it, others find that one, and nobody believes a dead one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import stack

from relight.engine.embedded.home import HomeLock, Running, default_home, running
from relight.engine.errors import EmbeddedServerError

SOURCE = Path(__file__).resolve().parents[1] / "src"


@pytest.fixture
def home() -> Iterator[Path]:
    with stack.folder() as path:
        yield path


def test_one_process_serves_a_home_and_others_find_it(home: Path) -> None:
    inner = home / "deep" / "home"
    assert running(inner) is None
    served = Running(
        nats_url="nats://a",
        monitor_url="http://b",
        database_url="postgresql://c",
        health_url="http://d",
        pid=os.getpid(),
    )
    with HomeLock(inner) as lock:
        assert running(inner) is None
        lock.announce(served)
        assert running(inner) == served
        assert (inner / "up.json").stat().st_mode & 0o777 == 0o600
        assert inner.stat().st_mode & 0o777 == (0o711 if os.geteuid() == 0 else 0o700)
        with pytest.raises(EmbeddedServerError, match="already serves"), HomeLock(inner):
            pass
    assert running(inner) is None
    with HomeLock(inner):
        pass


def test_what_a_killed_relight_up_announced_is_not_believed(home: Path) -> None:
    code = f"""
import os
from pathlib import Path
from relight.engine.embedded.home import HomeLock, Running
lock = HomeLock(Path({str(home)!r})).__enter__()
lock.announce(Running(nats_url="", monitor_url="", database_url="", health_url="", pid=os.getpid()))
print("up", flush=True)
input()
"""
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        found = running(home)
        assert found is not None
        assert found.pid == process.pid
        process.kill()
    assert (home / "up.json").exists()
    assert running(home) is None


def test_the_default_home_follows_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        assert default_home() == Path("/var/lib/relight")
        return
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_home() == Path("/data/relight")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert default_home() == Path.home() / ".local" / "share" / "relight"
