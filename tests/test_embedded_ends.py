"""Embedded servers end with whoever started them, however that ends, and the next one takes over."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import asyncpg
import embedding
import psutil
import pytest
from embedding import GONE_S, PARENT, end, parent, programs, ready, until, wait_gone

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.embedded.postgres import EmbeddedPostgres
from relight.engine.embedded.process import SUPERVISOR
from relight.engine.errors import EmbeddedServerError

each_end = pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
home, seed, used_home = embedding.home, embedding.seed, embedding.used_home


async def test_a_busy_backend_does_not_outlive_a_killed_postmaster(used_home: Path) -> None:
    async with EmbeddedPostgres(used_home, durable=False) as server:
        connection = await asyncpg.connect(server.url)
        watcher = await asyncpg.connect(server.url)
        # A nested loop in memory waits for nothing, so it does not notice that the postmaster is gone.
        endless = "SELECT sum(a) FROM " + ", ".join(f"generate_series(1, 100000) {name}" for name in "abc")
        query = asyncio.create_task(connection.execute(endless))
        states = "SELECT state = 'active' AND query LIKE 'SELECT sum(a)%' FROM pg_stat_activity WHERE pid = $1"
        deadline = time.monotonic() + GONE_S
        while not await watcher.fetchval(states, connection.get_server_pid()):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)
        await server.kill()
        assert programs(used_home) == set()
        await asyncio.gather(query, return_exceptions=True)
        await server.start()
        for each in (connection, watcher):
            each.terminate()


@each_end
def test_servers_end_with_their_parent(used_home: Path, number: signal.Signals) -> None:
    process = parent(used_home)
    ready(process)
    assert {"nats-server", "postgres"} <= programs(used_home)
    end(process, number)
    wait_gone(used_home)


@each_end
async def test_initdb_ends_with_its_parent_and_is_redone(home: Path, number: signal.Signals) -> None:
    process = parent(home)
    await asyncio.to_thread(until, lambda: "initdb" in programs(home))
    end(process, number)
    await asyncio.to_thread(wait_gone, home)
    assert not (home / "postgres" / "data").exists()
    if number == signal.SIGKILL:
        async with EmbeddedPostgres(home, durable=False):
            assert (home / "postgres" / "data" / "PG_VERSION").exists()


def test_a_parent_gone_before_the_server_runs_is_noticed() -> None:
    """The stop signal came between fork and exec, and Python's own handler, still in place there, swallowed it."""
    command = [sys.executable, "-I", "-S", str(SUPERVISOR), str(os.getpid()), str(int(signal.SIGTERM)), "30", "-"]
    for _ in range(20):
        done = subprocess.run([*command, "/bin/sleep", "60"], stdin=subprocess.DEVNULL, capture_output=True, timeout=5)
        assert done.returncode == 128 + signal.SIGTERM


def is_heir(process: psutil.Process) -> bool:
    """Whether it is the parent's fork; the servers beside it may end at any moment."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and "python" in process.name() and PARENT in process.cmdline()
    return False


def test_servers_end_with_their_parent_though_a_fork_of_it_holds_the_pipe(used_home: Path) -> None:
    process = parent(used_home, "fork")
    ready(process)
    forked = psutil.Process(process.pid).children()
    process.kill()
    process.wait(10)
    heirs = [child for child in forked if is_heir(child)]
    assert len(heirs) == 1
    until(lambda: not {"nats-server", "postgres"} & programs(used_home))
    heirs[0].kill()
    assert process.stdout is not None
    process.stdout.close()
    wait_gone(used_home)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
async def test_servers_end_with_a_killed_supervisor(used_home: Path) -> None:
    for server in (EmbeddedNats(used_home), EmbeddedPostgres(used_home, durable=False)):
        await server.start()
        supervisor = psutil.Process(server.pid).parent()
        assert supervisor is not None
        supervisor.kill()
        with pytest.raises(EmbeddedServerError, match="ended by itself"):
            await server.wait()
        await asyncio.to_thread(wait_gone, used_home)
        await server.start()
        await server.stop()


async def test_a_successor_waits_for_what_a_killed_parent_left(used_home: Path) -> None:
    process = parent(used_home)
    ready(process)
    end(process, signal.SIGKILL)
    async with EmbeddedNats(used_home), EmbeddedPostgres(used_home, durable=False) as server:
        connection = await asyncpg.connect(server.url)
        await connection.close()


async def test_a_stop_during_the_start_waits_and_stops(home: Path) -> None:
    server = EmbeddedNats(home)
    await server.stop()
    starting = asyncio.create_task(server.start())
    await asyncio.sleep(0)
    await server.stop()
    await starting
    assert not server.running
    cancelled = asyncio.create_task(server.start())
    deadline = time.monotonic() + GONE_S
    while not programs(home):
        assert time.monotonic() < deadline
        await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    await asyncio.to_thread(wait_gone, home)
