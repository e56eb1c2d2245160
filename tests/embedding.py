"""What tests of embedded servers share: homes of their own, a process that starts both servers, and how it ends."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
from places import temporary

from relight.engine.embedded.postgres import EmbeddedPostgres

SOURCE = Path(__file__).resolve().parents[1] / "src"
SITE = Path(asyncpg.__file__).resolve().parents[1]
GONE_S = 5.0
PARENT = """
import asyncio, os, signal, sys, time
from pathlib import Path
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.embedded.postgres import EmbeddedPostgres

async def main():
    home = Path(sys.argv[1])
    async with EmbeddedNats(home) as nats, EmbeddedPostgres(home, durable=False) as postgres:
        if "fork" in sys.argv and os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        print(nats.pid, postgres.pid, os.geteuid(), flush=True)
        await asyncio.Event().wait()

signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
asyncio.run(main())
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="about what root does")


@pytest.fixture
def home() -> Iterator[Path]:
    yield from temporary_home()


@pytest.fixture(scope="module")
def seed() -> Iterator[Path]:
    async def fill(home: Path) -> None:
        async with EmbeddedPostgres(home, durable=False):
            pass

    for home in temporary_home():
        asyncio.run(fill(home))
        yield home


@pytest.fixture
def used_home(home: Path, seed: Path) -> Path:
    """A home whose PostgreSQL was started before: a copy, which is faster than initdb."""
    subprocess.run(["cp", "-a", str(seed / "postgres"), str(home)], check=True)
    return home


def temporary_home() -> Iterator[Path]:
    """pytest's tmp_path is closed to others, and PostgreSQL started by root runs as nobody."""
    path = Path(tempfile.mkdtemp(prefix="relight-embedded-", dir=temporary()))
    path.chmod(0o755)
    yield path
    left = of_home(path)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=GONE_S)
    shutil.rmtree(path)


def of_home(home: Path) -> list[psutil.Process]:
    """Every live process that names the folder or works in it, as PostgreSQL's renamed backends do."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                words = (*process.cmdline(), process.cwd())
                if any(word.startswith(str(home)) for word in words):
                    found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def programs(home: Path) -> set[str]:
    found = set()
    for process in of_home(home):
        with suppress(psutil.NoSuchProcess):
            found.add(process.name())
    return found


def until(condition: Callable[[], bool], deadline_s: float = GONE_S) -> None:
    give_up = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def wait_gone(home: Path) -> None:
    until(lambda: not of_home(home))


def parent(home: Path, *words: str, python: str = sys.executable, **options: Any) -> subprocess.Popen[str]:
    """A process that starts both servers, leading a process group as a terminal's job does."""
    environment = os.environ | {"PYTHONPATH": f"{SOURCE}:{SITE}"}
    command = [python, "-c", PARENT, str(home), *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True, cwd="/", env=environment, **options
    )


def ready(process: subprocess.Popen[str]) -> list[int]:
    """The pids of NATS and PostgreSQL, and the parent's user."""
    assert process.stdout is not None
    return [int(word) for word in process.stdout.readline().split()]


def end(process: subprocess.Popen[str], number: int) -> None:
    os.killpg(process.pid, number)
    process.wait(10)
    assert process.stdout is not None
    process.stdout.close()
