"""The service's projector to be killed, and a recorder whose only work is to drain the spools of the dead."""

import asyncio
from pathlib import Path

import publishers

from relight.engine.recorder.recorder import Recorder, RecorderOptions
from relight.engine.servers import Servers
from relight.engine.service import PROJECTING, Parts, serving
from relight.engine.settings import Settings

HEALTH = Parts(api=False, ingest=False)


def project(nats_url: str, monitor_url: str, database_url: str, home: Path, health_port: int | None = None) -> None:
    asyncio.run(_project(nats_url, monitor_url, database_url, home, health_port))


async def _project(nats_url: str, monitor_url: str, database_url: str, home: Path, health_port: int | None) -> None:
    """As `relight serve --no-http --no-ingest` does; without a port nobody can ask how it is."""
    servers = Servers(nats=nats_url, monitors=(monitor_url,), database=database_url, ours=False)
    settings = Settings(home=home, region=publishers.REGION, http_port=health_port or 0)
    async with serving(servers, settings, HEALTH if health_port else PROJECTING, patient=True):
        await asyncio.Event().wait()


def adopt(nats_url: str, spools: Path) -> None:
    """Drains what processes that died left in their spools."""
    options = RecorderOptions(nats_url=nats_url, region=publishers.REGION, tenant=publishers.TENANT, spools=spools)
    with Recorder(options):
        asyncio.run(asyncio.Event().wait())
