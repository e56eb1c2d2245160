"""The one place that wires things together: what `relight.open` and each command need, and nothing else connects."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

from anyio.from_thread import start_blocking_portal

from relight.engine.clock import Clock
from relight.engine.log.recorder import Recorder, RecorderOptions
from relight.engine.runtime import Relight
from relight.engine.servers import Servers, found_servers
from relight.engine.service import Service, caught_up, serving
from relight.engine.settings import Settings
from relight.engine.sync import SyncRelight
from relight.engine.tables.pools import open_pool

CATCH_UP_S = 60.0


def recorder_options(servers: Servers, settings: Settings) -> RecorderOptions:
    """The settings, as the recorder wants them."""
    return RecorderOptions(
        nats_url=servers.nats_url,
        nats_monitor_urls=servers.monitors,
        region=settings.region,
        tenant=settings.tenant,
        spools=settings.home / "spool" if settings.spool else None,
        spool_max_bytes=settings.spool_max_bytes,
        spool_retention_s=settings.spool_retention_s,
        memory_max_events=settings.memory_max_events,
        ack_timeout_s=settings.ack_timeout_s,
        proof_ttl_s=settings.proof_ttl_s,
    )


@asynccontextmanager
async def ready_servers(settings: Settings) -> AsyncIterator[tuple[Servers, Service | None]]:
    """The servers, and the service where nobody else runs one: then leaving waits until all is projected."""
    async with found_servers(settings) as servers:
        if not servers.ours:
            yield servers, None
            return
        async with serving(servers, settings) as service:
            yield servers, service
            await caught_up(service, within_s=CATCH_UP_S)


@asynccontextmanager
async def open_relight(settings: Settings, *, clock: Clock | None = None) -> AsyncIterator[Relight]:
    """A recorder and a pool on the servers that the settings lead to."""
    async with AsyncExitStack() as stack:
        servers, _ = await stack.enter_async_context(ready_servers(settings))
        pool = await stack.enter_async_context(await open_pool(servers.database_url))
        recorder = await stack.enter_async_context(Recorder(recorder_options(servers, settings), clock=clock))
        yield Relight(recorder, pool, region=settings.region, tenant=settings.tenant)


@contextmanager
def open_relight_sync(settings: Settings, *, clock: Clock | None = None) -> Iterator[SyncRelight]:
    """`open_relight` for code without a loop: one runs in a thread of its own meanwhile."""
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(open_relight(settings, clock=clock)) as relight,
    ):
        yield SyncRelight(relight, portal)


