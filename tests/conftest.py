"""Real servers for the tests; fixtures give addresses, never connections, for each test has its own event loop."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import asyncpg
import filling
import pytest
import pytest_asyncio
import stack
from places import temporary

from relight.engine.embedded.postgres import EmbeddedPostgres
from relight.engine.tables.migrate import migrate

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
PGBOUNCER = Path("/usr/sbin/pgbouncer")
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(temporary()))  # where tmp_path is
START_S = 20.0
TEMPLATE = "relight_template"
NUMBERS = count(1)
fill = filling.fill


def lacking(what: str) -> NoReturn:
    """Skips the test; on a build server fails it, for there nothing may be missing."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is not installed here, and CI=true")
    pytest.skip(f"{what} is not installed here")


def _at(url: str, *, user: str | None = None, database: str | None = None) -> str:
    parts = urlsplit(url)
    login, host = parts.netloc.rsplit("@", 1)
    netloc = f"{f'{user}:{user}' if user else login}@{host}"
    return parts._replace(netloc=netloc, path=database or parts.path).geturl()


@pytest.fixture(scope="session")
def at() -> Callable[..., str]:
    """`at(url, user=…, database=…)`: the same server as another login (its password is its name), another database."""
    return _at


async def execute(url: str, *statements: str) -> None:
    """Each in a transaction of its own."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """A folder that PostgreSQL's user can enter, as pytest's own cannot be by others."""
    folder = Path(tempfile.mkdtemp(prefix="relight-tests-", dir=temporary()))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def spools() -> Iterator[Path]:
    """Where recorders of one test keep their spools."""
    with stack.folder() as path:
        yield path / "spool"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres(home: Path) -> AsyncIterator[str]:
    """URL of a PostgreSQL 18 as its superuser; has the template database, and so all roles."""
    async with EmbeddedPostgres(home, durable=False) as server:
        await execute(server.url, f"CREATE DATABASE {TEMPLATE}")
        connection = await asyncpg.connect(_at(server.url, database=TEMPLATE))
        await migrate(connection)
        await connection.close()
        yield server.url


@asynccontextmanager
async def _cloned(postgres: str) -> AsyncIterator[str]:
    name = f"relight_{next(NUMBERS)}"
    await execute(postgres, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    try:
        yield _at(postgres, database=name)
    finally:
        await execute(postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest_asyncio.fixture
async def database(postgres: str) -> AsyncIterator[str]:
    """URL of a migrated, empty database of this test's own, as superuser."""
    async with _cloned(postgres) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_database(postgres: str) -> AsyncIterator[str]:
    """As `database`, for all tests of a file."""
    async with _cloned(postgres) as url:
        yield url


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["18", "15"])
async def bare_postgres(home: Path, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """URL of a PostgreSQL without our roles, as its superuser: the embedded 18, and Debian's 15."""
    if request.param == "18":
        async with EmbeddedPostgres(home / f"bare-{next(NUMBERS)}", durable=False) as server:
            yield server.url
    elif not DEBIAN_15.is_dir():
        lacking("Debian's postgresql-15")
    else:
        with _debian_postgres(home / f"debian-{next(NUMBERS)}") as url:
            yield url


@contextmanager
def _debian_postgres(folder: Path) -> Iterator[str]:
    data, password = folder / "data", folder / "password"
    folder.mkdir()
    password.write_text("postgres\n")
    _own(folder, password)
    initdb: list[str | Path] = [DEBIAN_15 / "initdb", "-D", data, "-U", "postgres", "-A", "scram-sha-256", "--pwfile"]
    subprocess.run(
        [*initdb, password, "--no-sync", "--locale=C", "-E", "UTF8"], check=True, capture_output=True, **_nobody()
    )
    port = _free_port()
    unsafe = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
    command: list[str | Path] = [DEBIAN_15 / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", ""]
    command += [word for setting in unsafe for word in ("-c", setting)]
    with _running(command, folder / "log", "ready to accept connections"):
        yield f"postgresql://postgres:postgres@127.0.0.1:{port}/postgres"


@pytest_asyncio.fixture
async def server(bare_postgres: str) -> AsyncIterator[str]:
    """`bare_postgres`, left without databases and roles."""
    yield bare_postgres
    connection = await asyncpg.connect(bare_postgres)
    for (name,) in await connection.fetch("SELECT datname FROM pg_database WHERE datname ~ '^test_'"):
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    for (name,) in await connection.fetch("SELECT rolname FROM pg_roles WHERE rolname ~ '^(relight|test)_'"):
        await connection.execute(f"DROP ROLE {name}")
    await connection.close()


@pytest.fixture(scope="session")
def pgbouncer(home: Path) -> Iterator[Callable[[str, tuple[str, ...]], str]]:
    """`pgbouncer(url, logins)`: URL of a PgBouncer in transaction mode, with one connection, before that server."""
    if not PGBOUNCER.exists():
        lacking("pgbouncer")
    started: list[Any] = []

    def start(url: str, logins: tuple[str, ...]) -> str:
        folder, port, parts = home / f"pgbouncer-{next(NUMBERS)}", _free_port(), urlsplit(url)
        folder.mkdir()
        passwords = {parts.username: parts.password} | {login: login for login in logins}
        (folder / "users").write_text("".join(f'"{user}" "{password}"\n' for user, password in passwords.items()))
        (folder / "ini").write_text(f"""
[databases]
* = host={parts.hostname} port={parts.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder / "users"}
pool_mode = transaction
default_pool_size = 1
""")
        _own(folder, folder / "users", folder / "ini")
        running = _running([PGBOUNCER, folder / "ini"], folder / "log", "process up")
        running.__enter__()
        started.append(running)
        return url.replace(f":{parts.port}/", f":{port}/")

    yield start
    for running in started:
        running.__exit__(None, None, None)


@contextmanager
def _running(command: list[str | Path], log: Path, ready: str) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, **_nobody())
    try:
        deadline = time.monotonic() + START_S
        while ready not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start:\n{log.read_text()}")
            time.sleep(0.01)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(START_S)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _nobody() -> dict[str, Any]:
    """PostgreSQL and PgBouncer refuse to run as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": "/"}


def _own(*paths: Path) -> None:
    if os.geteuid() == 0:
        for path in paths:
            shutil.chown(path, "nobody")
