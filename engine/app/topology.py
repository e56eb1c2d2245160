"""What `relight up --topology` runs: one region in this process, or all of them, a process for each."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from relight.engine.app.topologies import apply_topology
from relight.engine.archive.keys import sealing_key_path
from relight.engine.embedded.home import HomeLock, Running, region_home
from relight.engine.errors import SettingsError
from relight.engine.running import SIGNALS, run_service
from relight.engine.service import Parts
from relight.engine.settings import Settings
from relight.engine.topology.children import Command, run_children
from relight.engine.topology.loading import load_topology
from relight.engine.topology.local import kept_cluster
from relight.engine.topology.model import Kind, Topology
from relight.engine.topology.servers import region_servers


def local_topology(named: str) -> Topology:
    """Raises `TopologyRefused`; `SettingsError` when its servers are elsewhere."""
    topology = load_topology(named)
    if not topology.local:
        raise SettingsError(
            f"{named} names servers of yours, and `relight up` starts its own: run `relight serve` in each region,"
            " with RELIGHT_TOPOLOGY and RELIGHT_REGION"
        )
    return topology


async def run_region(
    settings: Settings, named: str, region: str, announce: Callable[[Running], None], *, with_stdin: bool = False
) -> list[str]:
    """One region's servers and service until SIGINT or SIGTERM; `with_stdin`: or until stdin closes.

    It answers once the cluster has a quorum. Otherwise as `run_up`.
    """
    topology = local_topology(named)
    here = region_settings(settings, named, topology.known(region))
    if with_stdin:
        await _ends_with_stdin()
    with HomeLock(here.home) as lock:

        def say(running: Running) -> None:
            lock.announce(running)
            announce(running)

        async with region_servers(settings.home, topology, region) as servers:
            return await run_service(servers, here, Parts(), say, patient=True)


async def run_regions(
    settings: Settings,
    named: str,
    *,
    restart: bool,
    announce: Callable[[Mapping[str, Running]], None],
    said: Callable[[str], None],
) -> None:
    """All regions until SIGINT or SIGTERM. A process that ends by itself is started again, unless told otherwise.

    `announce` is called once all are ready and what the topology says is declared, `said` is told of each end.
    Raises `EmbeddedServerError`.
    """
    topology = local_topology(named)
    where = named if named in tuple(Kind) else str(Path(named).absolute())
    asked = asyncio.Event()
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, asked.set)
    with HomeLock(settings.home):
        kept_cluster(settings.home, topology, renewed=True)
        commands = [
            Command(
                home=settings.home,
                region=region,
                arguments=("up", "--json", "--ends-with-stdin", "--topology", where, "--region", region),
                environment=_environment(settings, place),
            )
            for place, region in enumerate(topology.regions)
        ]

        async def ready(regions: Mapping[str, Running]) -> None:
            await apply_topology(settings, named, by="relight up")
            announce(regions)

        await run_children(commands, restart=restart, ready=ready, said=said, asked=asked)


def region_settings(settings: Settings, named: str, region: str) -> Settings:
    """Those of one region's service: a home of its own, and a key for the archive that it shares with the others."""
    return settings.overridden(
        {
            "home": region_home(settings.home, region),
            "topology": named,
            "region": region,
            "archive_key": sealing_key_path(settings.home, settings.archive_key),
        }
    )


def _environment(settings: Settings, place: int) -> dict[str, str]:
    given = {name: value for name, value in os.environ.items() if name not in ("RELIGHT_REGION", "RELIGHT_TOPOLOGY")}
    port = {"RELIGHT_HTTP_PORT": str(settings.http_port + place)} if settings.http_port else {}
    return given | {"RELIGHT_HOME": str(settings.home.absolute())} | port


async def _ends_with_stdin() -> None:
    """Whoever started this process holds the other end: when that is gone, it is time to end in order."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def watch() -> None:
        await reader.read()
        os.kill(os.getpid(), signal.SIGTERM)

    _KEPT.add(loop.create_task(watch()))


_KEPT: "set[asyncio.Task[None]]" = set()
