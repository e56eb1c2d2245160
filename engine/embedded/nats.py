"""NATS with JetStream, started for the user."""

import json
import os
import signal
from pathlib import Path
from typing import ClassVar

from relight.engine.embedded.binaries import nats_server
from relight.engine.embedded.members import Member
from relight.engine.embedded.ports import LOOPBACK, free_port, keep_ports, kept_ports
from relight.engine.embedded.private import kept_password, private_folder, write_private
from relight.engine.embedded.process import Launch, SupervisedProcess
from relight.engine.embedded.server import EmbeddedServer
from relight.engine.proving.questions import PUSHED, QUESTION

USER = "relight"
AGENT = "agent"
SYSTEM = "system"
MAX_FILE_STORE_BYTES = 1 << 40
MAX_MEMORY_STORE_BYTES = 256 << 20
# A publisher that dies within an atomic batch holds one of these for 10 s; the server's default is 50.
OPEN_BATCHES_PER_STREAM = 1_000
OPEN_BATCHES = 10_000


class EmbeddedNats(EmbeddedServer):
    """`home`/nats; passwords keep other users of the machine from reading and writing.

    Three logins: the service's, agents' (which may not answer in the prober's place), and the system account's.

    `member` makes it one of several: it has the ports and passwords that the others were told.
    `sync_always=False` acknowledges before the disk has it: for tests and benchmarks.
    The monitoring port knows no password, as everywhere in NATS: it shows names and counts, never messages.
    """

    title: ClassVar[str] = "The embedded NATS server"

    def __init__(
        self,
        home: Path,
        *,
        member: Member | None = None,
        sync_always: bool = True,
        max_file_store_bytes: int = MAX_FILE_STORE_BYTES,
    ) -> None:
        super().__init__(home, "nats")
        self.store = self.folder / "store"
        self._member = member
        self._sync_always = sync_always
        self._max_file_store_bytes = max_file_store_bytes
        self._ports: dict[str, int] = {}
        self._passwords: dict[str, str] = {}
        self._binary = Path()

    @property
    def url(self) -> str:
        return self._url(USER)

    @property
    def agent_url(self) -> str:
        return self._url(AGENT)

    @property
    def system_url(self) -> str:
        return self._url(SYSTEM)

    def _url(self, user: str) -> str:
        port = self._started_ports["client"]
        return f"nats://{user}:{self._passwords[user]}@{LOOPBACK}:{port}"

    @property
    def monitor_url(self) -> str:
        return f"http://{LOOPBACK}:{self._started_ports['monitor']}"

    @property
    def _started_ports(self) -> dict[str, int]:
        if not self._ports:
            raise self._not_started()
        return self._ports

    async def _prepare(self, lock_fd: int) -> None:
        self._binary = nats_server()
        files = {USER: "password", AGENT: "agent-password", SYSTEM: "system-password"}
        if self._member is not None:
            self._passwords = {user: self._member.passwords[user] for user in files}
        else:
            self._passwords = {user: kept_password(self.folder / file) for user, file in files.items()}
        private_folder(self.store)

    def _launch(self, lock_fd: int, *, new_ports: bool) -> Launch:
        for stale in self.folder.glob("*.ports"):  # left by a killed server, whose pid may come again
            stale.unlink()
        if self._member is not None:
            self._ports = self._member.ports
        else:
            kept = {} if new_ports else kept_ports(self.folder / "ports.json")
            self._ports = {name: kept.get(name) or free_port() for name in ("client", "monitor")}
        config = self.folder / "server.conf"
        write_private(config, self._config())
        return Launch(
            command=(str(self._binary), "-c", str(config)),
            stop_signal=signal.SIGTERM,
            log=self.log,
            lock_fd=lock_fd,
        )

    def _config(self) -> str:
        member = self._member
        unique = "" if member is None else f'  unique_tag: "{member.unique_tag}"\n'
        return f"""\
server_name: "{"relight" if member is None else member.name}"
{"" if member is None else member.config()}\
listen: "{LOOPBACK}:{self._ports["client"]}"
http: "{LOOPBACK}:{self._ports["monitor"]}"
ports_file_dir: {quoted(self.folder)}
authorization {{ users: [
  {{ user: "{USER}", password: "{self._passwords[USER]}" }}
  {{ user: "{AGENT}", password: "{self._passwords[AGENT]}"
    permissions {{ subscribe {{ deny: ["{QUESTION}"] }}, publish {{ deny: ["{PUSHED}"] }} }} }}
] }}
accounts {{ $SYS {{ users: [ {{ user: "{SYSTEM}", password: "{self._passwords[SYSTEM]}" }} ] }} }}
jetstream {{
  store_dir: {quoted(self.store)}
  sync_interval: {"always" if self._sync_always else '"2m"'}
{unique}\
  max_file_store: {self._max_file_store_bytes}
  max_memory_store: {MAX_MEMORY_STORE_BYTES}
  limits {{ batch {{ max_inflight_per_stream: {OPEN_BATCHES_PER_STREAM}, max_inflight_total: {OPEN_BATCHES} }} }}
}}
"""

    async def _ready(self, process: SupervisedProcess) -> bool:
        # The server writes this file when all its listeners accept, which is after JetStream has recovered.
        if not (self.folder / f"{self._binary.name}_{process.pid}.ports").exists():
            return False
        keep_ports(self.folder / "ports.json", self._ports)
        return True


def quoted(path: Path) -> str:
    """NATS reads JSON's escapes within quotes, but no `\\u`."""
    return json.dumps(os.fspath(path), ensure_ascii=False)
