"""Which NATS and PostgreSQL are used: yours, those of a running `relight up`, or ones started for the while."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from relight.engine.embedded.home import HomeLock, Running, running, running_regions
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.embedded.postgres import EmbeddedPostgres
from relight.engine.embedded.server import EmbeddedServer
from relight.engine.errors import EmbeddedServerError, SettingsError
from relight.engine.settings import Settings
from relight.engine.topology.loading import load_topology
from relight.engine.topology.model import Topology

WAIT_FOR_HOME_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Servers:
    """Addresses; they contain passwords. `ours`: started here, so that the projector has to run here too."""

    nats: str | None
    monitors: tuple[str, ...]
    database: str | None
    ours: bool
    system: str | None = None
    """NATS as a user of its system account: for the prober alone."""
    agents: str | None = None
    """NATS as others than the service are told, where that is another login."""
    ended: Callable[[], Awaitable[None]] | None = None
    """Of ours: waits until one ends by itself, then raises `EmbeddedServerError`."""
    replicas: int = 1
    """Copies of the stream where it has to be declared."""
    region: str | None = None
    """Whose they are, in a topology."""
    pids: Mapping[str, int] = field(default_factory=dict)
    """Of ours, by name."""

    @property
    def nats_url(self) -> str:
        if self.nats is None:
            raise SettingsError("RELIGHT_DATABASE_URL is set but RELIGHT_NATS_URL is not: set both, or neither")
        return self.nats

    @property
    def database_url(self) -> str:
        if self.database is None:
            raise SettingsError("RELIGHT_NATS_URL is set but RELIGHT_DATABASE_URL is not: set both, or neither")
        return self.database


@asynccontextmanager
async def found_servers(settings: Settings) -> AsyncIterator[Servers]:
    """The servers of the settings, else of a running `relight up` of this home, else started until the `with` ends.

    A home that another command serves just now is waited for. Raises `EmbeddedServerError`.
    """
    if settings.nats_url or settings.database_url:
        yield Servers(
            nats=settings.nats_url,
            monitors=settings.nats_monitor_urls,
            database=settings.database_url,
            ours=False,
            system=settings.nats_system_url,
        )
        return
    if settings.topology is not None:
        yield told_servers(settings, load_topology(settings.topology))
        return
    deadline = time.monotonic() + WAIT_FOR_HOME_S
    while True:
        if (up := serving_home(settings)) is not None:
            yield announced_servers(up)
            return
        lock = HomeLock(settings.home)
        try:
            lock.__enter__()
            break
        except EmbeddedServerError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)
    try:
        async with embedded_servers(settings.home) as servers:
            yield servers
    finally:
        lock.__exit__(None, None, None)


def serving_home(settings: Settings) -> Running | None:
    """What a `relight up` of this home announced; of several regions this one's, else the first that is up."""
    if (up := running(settings.home)) is not None:
        return up
    living = running_regions(settings.home)
    return living.get(settings.region) or next(iter(living.values()), None)


def announced_servers(up: Running) -> Servers:
    """Those of a `relight up`. Of a region's others the monitoring addresses are not known: provers are asked."""
    monitors = () if up.region is not None else (up.monitor_url,)
    return Servers(nats=up.nats_url, monitors=monitors, database=up.database_url, ours=False, region=up.region)


def told_servers(settings: Settings, topology: Topology) -> Servers:
    """Those that the topology leads to from this region, or from the first where none is set: its own, then others'.

    Raises `TopologyRefused` when it has no such region, `EmbeddedServerError` when it is local and none is up.
    """
    region = topology.known(settings.said_region or topology.names[0])
    if topology.local:
        if (up := serving_home(settings)) is None:
            raise EmbeddedServerError(
                f"no region of {settings.topology} is up in {settings.home}: run relight up --topology"
                f" {settings.topology}, or set RELIGHT_HOME to where it runs"
            )
        return announced_servers(up)
    urls = [topology.regions[name].nats for name in (region, *topology.others(region))]
    return Servers(
        nats=",".join(url for url in urls if url is not None),
        monitors=settings.nats_monitor_urls,
        database=topology.regions[region].database,
        ours=False,
        system=settings.nats_system_url,
        replicas=topology.replicas,
        region=region,
    )


@asynccontextmanager
async def embedded_servers(home: Path, *, durable: bool = True) -> AsyncIterator[Servers]:
    """Both servers, started together, their data in `home`."""
    async with AsyncExitStack() as stack:
        nats, postgres = EmbeddedNats(home), EmbeddedPostgres(home, durable=durable)
        await asyncio.gather(stack.enter_async_context(nats), stack.enter_async_context(postgres))

        monitors = (nats.monitor_url,)
        yield Servers(
            nats=nats.url,
            monitors=monitors,
            database=postgres.url,
            ours=True,
            system=nats.system_url,
            agents=nats.agent_url,
            ended=partial(first_ended, (nats, postgres)),
            pids={"nats": nats.pid, "postgres": postgres.pid},
        )


async def first_ended(servers: Sequence[EmbeddedServer]) -> None:
    """Waits until one of them ends by itself, and raises `EmbeddedServerError`."""
    waits = [asyncio.create_task(server.wait()) for server in servers]
    try:
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        await done.pop()
    finally:
        for wait in waits:
            wait.cancel()
