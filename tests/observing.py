"""Health of a test's own servers, and servers that hang."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import psutil
import stack
from nats.aio.client import Client

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.health.models import Check, Health
from relight.engine.health.probe import HealthProbe, Watched
from relight.engine.proving.monitors import Monitors
from relight.engine.proving.prober import Prober
from relight.engine.tables.connecting import connect_probe
from relight.engine.tables.pools import Pool
from relight.engine.tables.projector import Projector
from relight.events.envelope import PLATFORM

HOME = Path("/tmp")


@asynccontextmanager
async def probing(
    nats: EmbeddedNats,
    database: str,
    *,
    client: Client,
    home: Path = HOME,
    projector: Projector | None = None,
    pool: Pool | None = None,
    tenant: str = PLATFORM,
) -> AsyncIterator[HealthProbe]:
    watched = Watched(
        client=client,
        connect=lambda: connect_probe(database),
        home=home,
        region="eu",
        tenant=tenant,
        pools={"requests": pool} if pool else {},
        projector=projector,
        prober=Prober(client, Monitors(client, [nats.monitor_url]), ttl_s=60, settle_s=0),
    )
    async with HealthProbe(watched) as probe:
        yield probe


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """The process and its children are stopped meanwhile: connections stay, and nothing answers."""
    postmaster = psutil.Process(pid)
    family = [postmaster, *postmaster.children(recursive=True)]
    for process in family:
        process.suspend()
    try:
        yield
    finally:
        for process in family:
            if process.is_running():
                process.resume()


def found(health: Health, key: str, id: str | None = None) -> Check:
    """The only check of that key."""
    [check] = [check for check in health.checks if check.key == key and (id is None or check.id == id)]
    return check


async def recorded(nats: EmbeddedNats, count: int) -> None:
    """So many events stand on the stream afterwards, besides the recorder's own two."""
    async with stack.Recorder(stack.options(nats)) as recorder:
        for n in range(count):
            recorder.record(stack.failed(n))
        await stack.drained(recorder)
