"""What `relight topology` does, as an operator beside the regions' services."""

import asyncio
import getpass
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from relight.engine.embedded.home import running_regions
from relight.engine.embedded.nats import AGENT
from relight.engine.errors import Unreachable
from relight.engine.log.topology import addresses, close, connect
from relight.engine.options import recorder_options
from relight.engine.proving.asking import Attestations
from relight.engine.proving.models import Attestation
from relight.engine.recorder.recorder import Recorder
from relight.engine.servers import found_servers
from relight.engine.settings import Settings
from relight.engine.tables.connecting import Session, connect_probe
from relight.engine.topology.applying import Applying
from relight.engine.topology.differences import Difference
from relight.engine.topology.loading import load_topology
from relight.engine.topology.local import kept_cluster, members_of
from relight.engine.topology.model import UNIQUE_REGION, UNIQUE_ZONE, Kind, Topology
from relight.engine.topology.rendering import write_rendered
from relight.engine.topology.servers_seen import Monitored, SeenServer, seen
from relight.engine.topology.status import Asked, TopologyStatus, status_of


async def plan_topology(settings: Settings, named: str) -> list[Difference]:
    """What `apply` would change. Raises `TopologyRefused`, `Unreachable`."""
    async with _applying(settings, named) as applying:
        return await applying.plan()


async def apply_topology(settings: Settings, named: str, *, by: str | None = None) -> list[Difference]:
    """What was changed, or is left to others. Raises `TopologyRefused`, `Unreachable`, `FailoverRefused`."""
    async with _applying(settings, named) as applying:
        return await applying.apply(ordered_by=by or getpass.getuser())


async def topology_status(settings: Settings, named: str) -> TopologyStatus:
    """Whoever does not answer is said so. Raises `TopologyRefused`; `EmbeddedServerError` when no region is up."""
    topology = load_topology(named)
    here = operators_settings(settings, named, topology)
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(found_servers(here))
        client = None
        with suppress(Unreachable):
            client = await connect(servers.nats_url, name="relight topology")
            stack.push_async_callback(close, client)
        databases = _databases(here, topology)
        asked = Asked(
            client=client,
            servers=await servers_seen(here, topology),
            addresses=_addresses(here, topology),
            sessions={name: _session(databases.get(name)) for name in topology.regions},
            attest=Attestations(client, ttl_s=here.proof_ttl_s).attest if client is not None else _nobody,
        )
        return await status_of(topology.fleet.kind.value, topology.names, asked)


def render_topology(named: str, folder: Path) -> list[Path]:
    """The files that were written. Raises `TopologyRefused`."""
    return write_rendered(load_topology(named), folder)


async def servers_seen(settings: Settings, topology: Topology) -> tuple[SeenServer, ...]:
    """As their monitoring addresses tell; none where those are not known."""
    return tuple(await asyncio.gather(*(seen(server) for server in _monitored(settings, topology))))


def operators_settings(settings: Settings, named: str, topology: Topology) -> Settings:
    """With the region that it acts in: the one set, if that is the topology's, else the first."""
    region = settings.region if settings.region in topology.regions else topology.names[0]
    return settings.overridden({"topology": named, "region": region})


@asynccontextmanager
async def _applying(settings: Settings, named: str) -> AsyncIterator[Applying]:
    topology = load_topology(named)
    here = operators_settings(settings, named, topology)
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(found_servers(here))
        recorder = await stack.enter_async_context(Recorder(recorder_options(servers, here)))
        yield Applying(recorder, topology, await servers_seen(here, topology))


def _monitored(settings: Settings, topology: Topology) -> list[Monitored]:
    """Of real machines RELIGHT_NATS_MONITOR_URLS is in the order of the topology's servers."""
    zoned = topology.fleet.kind is Kind.ZONE
    names = [(region, name) for region in topology.regions for name in members_of(topology, region)]
    local = topology.local
    urls = kept_cluster(settings.home, topology).monitor_urls(topology) if local else settings.nats_monitor_urls
    if topology.fleet.kind is Kind.EMBEDDED and local:
        return []
    return [
        Monitored(
            name=name, region=region, tag=f"{UNIQUE_ZONE}{name}" if zoned else f"{UNIQUE_REGION}{region}", url=url
        )
        for (region, name), url in zip(names, urls, strict=False)
    ]


def _addresses(settings: Settings, topology: Topology) -> dict[str, str]:
    """Of each server alone, by name."""
    if not topology.local:
        return {
            name: url
            for region, options in topology.regions.items()
            for name, url in zip(members_of(topology, region), addresses(options.nats or ""), strict=False)
        }
    cluster = kept_cluster(settings.home, topology)
    return {
        name: url
        for region in topology.regions
        for name, url in zip(
            members_of(topology, region), cluster.urls(AGENT, topology, region).split(","), strict=False
        )
    }


def _session(url: str | None) -> Callable[[], Awaitable[Session]]:
    """Of one region's database; one that is down has no address."""

    async def opened() -> Session:
        if url is None:
            raise Unreachable("the region is not up here")
        return await connect_probe(url)

    return opened


async def _nobody() -> Attestation:
    """Where no server answers."""
    return Attestation(faults=("no server of the stream answers",))


def _databases(settings: Settings, topology: Topology) -> dict[str, str]:
    if topology.local:
        return {name: up.database_url for name, up in running_regions(settings.home).items()}
    return {name: region.database for name, region in topology.regions.items() if region.database is not None}
