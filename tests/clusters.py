"""Real clusters of NATS servers, whose members a test stops and starts anew with other settings."""

import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import stack
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import StreamConfig
from nats.js.errors import APIError

from relight.engine.embedded.binaries import nats_server
from relight.engine.embedded.ports import free_port
from relight.engine.errors import Unreachable
from relight.engine.log.topology import connect, stream_config

STRONG, WEAK = "always", '"2m"'
STOP_S = 10
NO_PEERS = 10005
"""JetStream's code while it does not know all its servers yet."""


@dataclass
class Member:
    """One server; `url` is the service's login, `agent` that of recorders, `system` that of the system account."""

    name: str
    folder: Path
    routes: str
    port: int
    monitor: int
    route: int
    tags: str = ""
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"nats://service:p@127.0.0.1:{self.port}"

    @property
    def agent(self) -> str:
        return f"nats://agent:p@127.0.0.1:{self.port}"

    @property
    def system(self) -> str:
        return f"nats://system:p@127.0.0.1:{self.port}"

    @property
    def monitor_url(self) -> str:
        return f"http://127.0.0.1:{self.monitor}"

    def start(self, sync: str = STRONG) -> None:
        cluster = f'cluster {{ name: c, listen: "127.0.0.1:{self.route}", routes: [{self.routes}] }}'
        config = self.folder / f"{self.name}.conf"
        config.write_text(f"""
server_name: {self.name}
server_tags: [{self.tags}]
listen: "127.0.0.1:{self.port}"
http: "127.0.0.1:{self.monitor}"
{cluster if self.routes else ""}
jetstream {{ store_dir: "{self.folder / self.name}", sync_interval: {sync} }}
authorization {{ users: [
  {{ user: service, password: p }}
  {{ user: agent, password: p
    permissions {{ subscribe {{ deny: ["proof.ask"] }}, publish {{ deny: ["proof.said"] }} }} }}
] }}
accounts {{ $SYS {{ users: [ {{ user: system, password: p }} ] }} }}
""")
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen([nats_server(), "-c", config], stdout=log, stderr=log)

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(STOP_S)


@asynccontextmanager
async def cluster(*syncs: str, regions: Sequence[str] = ()) -> AsyncIterator[list[Member]]:
    """As many servers as there are settings of sync_interval, all of them there; one alone is no cluster.

    `regions`: those that they are tagged with, one each.
    """
    with stack.folder() as folder:
        ports = iter(_ports(3 * len(syncs)))
        members = [Member(f"n{n}", folder, "", next(ports), next(ports), next(ports)) for n in range(len(syncs))]
        for member, region in zip(members, regions, strict=False):
            member.tags = f'"region:{region}"'
        if len(members) > 1:
            routes = ", ".join(f'"nats-route://127.0.0.1:{member.route}"' for member in members)
            for member in members:
                member.routes = routes
        try:
            for member, sync in zip(members, syncs, strict=True):
                member.start(sync)
            yield members
        finally:
            for member in members:
                if member.process is not None and member.process.poll() is None:
                    member.stop()


def _ports(count: int) -> set[int]:
    """As many free ones, no two of them alike."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return found


@asynccontextmanager
async def joined(member: Member) -> AsyncIterator[Client]:
    """A client of the service's login, as soon as that server takes one."""

    async def connected() -> Client | None:
        try:
            return await connect(member.url, name="relight test")
        except Unreachable:
            return None

    client: Client = await stack.until(connected, f"{member.name} takes clients")
    try:
        yield client
    finally:
        await client.close()


async def declare(client: Client, config: StreamConfig | None = None) -> None:
    """The stream, with a replica on each of three servers unless told otherwise, once JetStream has a leader."""

    async def declared() -> bool:
        try:
            await client.jetstream(timeout=0.3).add_stream(config=config or stream_config(3))
        except APIError as error:
            if error.code in (500, 503) or error.err_code == NO_PEERS:
                return False
            raise
        except (TimeoutError, NatsError):
            return False
        return True

    await stack.until(declared, "the stream is declared")


async def leader(client: Client) -> str:
    """The name of the server that leads the stream, once one does."""

    async def name() -> str | None:
        try:
            info = await client.jetstream(timeout=2).stream_info("EV")
        except (TimeoutError, NatsError, APIError):
            return None
        return info.cluster.leader if info.cluster else None

    found: str = await stack.until(name, "the stream has a leader")
    return found


async def settled(client: Client) -> None:
    """All three replicas are up to date: as right after a start they are not."""

    async def current() -> bool:
        info = await client.jetstream(timeout=2).stream_info("EV")
        cluster = info.cluster
        peers = (cluster.replicas or []) if cluster else []
        return len(peers) == 2 and all(peer.current for peer in peers)

    await stack.until(current, "the replicas are current")


async def follower(members: list[Member], client: Client) -> Member:
    """One that does not lead, and whose clients are not the test's."""
    leading = await leader(client)
    return next(member for member in members[1:] if member.name != leading)
