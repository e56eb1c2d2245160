"""PostgreSQL, started for the user."""

import asyncio
import os
import pwd
import signal
from pathlib import Path
from typing import ClassVar

import asyncpg

from relight.engine.embedded.binaries import Install, require_reachable, usable_install
from relight.engine.embedded.cluster import SUPERUSER, check_cluster, make_cluster
from relight.engine.embedded.ports import LOOPBACK, free_port, keep_ports, kept_ports
from relight.engine.embedded.private import kept_password
from relight.engine.embedded.process import Launch, Owner, SupervisedProcess
from relight.engine.embedded.server import EmbeddedServer
from relight.engine.errors import EmbeddedServerError

DATABASE = "relight"
SETTINGS = {
    "max_connections": "100",
    "shared_buffers": "128MB",
    "max_wal_size": "512MB",
    "checkpoint_completion_target": "0.9",
    "log_checkpoints": "off",
    "jit": "off",  # compiling takes longer than our queries
    "timezone": "UTC",
    "log_timezone": "UTC",
}
NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class EmbeddedPostgres(EmbeddedServer):
    """`home`/postgres; TCP on loopback only, with a password; as the user nobody when root starts it.

    `durable=False` loses data when the machine stops: for tests and benchmarks.
    """

    title: ClassVar[str] = "The embedded PostgreSQL server"

    def __init__(self, home: Path, *, durable: bool = True) -> None:
        super().__init__(home, "postgres")
        self.data = self.folder / "data"
        self._durable = durable
        self._owner = unprivileged()
        self._install: Install | None = None
        self._password = ""
        self._port = 0

    @property
    def url(self) -> str:
        return self._url(DATABASE)

    def _url(self, database: str) -> str:
        if not self._port:
            raise self._not_started()
        # Clients prefer TLS by default: a vain round trip, and asyncpg fails where ~/.postgresql cannot be read.
        return f"postgresql://{SUPERUSER}:{self._password}@{LOOPBACK}:{self._port}/{database}?sslmode=disable"

    async def _prepare(self, lock_fd: int) -> None:
        if self._owner:
            await asyncio.to_thread(require_reachable, self.folder, self._owner)
        self._install = await asyncio.to_thread(usable_install, self.folder, self._owner)
        self._password = kept_password(self.folder / "password")
        if (self.data / "PG_VERSION").exists():
            check_cluster(self.data, self._install)
        else:
            await make_cluster(
                self.data,
                self._install,
                owner=self._owner,
                password=self._password,
                durable=self._durable,
                log=self.log,
                lock_fd=lock_fd,
            )

    def _launch(self, lock_fd: int, *, new_ports: bool) -> Launch:
        assert self._install is not None
        ports = {} if new_ports else kept_ports(self.folder / "ports.json")
        self._port = ports.get("client") or free_port()
        settings = SETTINGS | ({} if self._durable else NOT_DURABLE)
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        program = str(self._install.bin / "postgres")
        return Launch(
            command=(program, "-D", str(self.data), "-h", LOOPBACK, "-p", str(self._port), "-k", "", *options),
            stop_signal=signal.SIGINT,  # fast shutdown: ends the sessions, then writes a checkpoint
            log=self.log,
            lock_fd=lock_fd,
            owner=self._owner,
        )

    async def _ready(self, process: SupervisedProcess) -> bool:
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # The same eight lines that pg_ctl waits for; the file of a killed predecessor has another pid.
        if len(lines) < 8 or lines[0] != str(process.pid) or lines[7].strip() != "ready":
            return False
        await self._make_database()
        keep_ports(self.folder / "ports.json", {"client": self._port})
        return True

    async def _make_database(self) -> None:
        try:
            try:
                connection = await asyncpg.connect(self.url, timeout=10)
            except asyncpg.InvalidCatalogNameError:
                connection = await asyncpg.connect(self._url(SUPERUSER), timeout=10)
                await connection.execute(f"CREATE DATABASE {DATABASE}")
            await connection.close()
        except asyncpg.InvalidPasswordError as error:
            raise EmbeddedServerError(
                f"{self.title} does not accept the password in {self.folder / 'password'}: restore that file."
            ) from error


def unprivileged() -> Owner | None:
    """The user nobody when we are root, as PostgreSQL refuses root; None: as we are."""
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedServerError(
            "PostgreSQL does not run as root, and there is no user nobody on this machine: "
            "run relight as an ordinary user or set RELIGHT_DATABASE_URL."
        ) from None
    return Owner(uid=nobody.pw_uid, gid=nobody.pw_gid)
