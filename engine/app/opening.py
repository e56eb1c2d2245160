"""What `relight.open` gives."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial

from anyio.from_thread import start_blocking_portal

from relight.engine.app.connections import ready_servers
from relight.engine.clock import Clock
from relight.engine.guard.breakers.breakers import Breakers
from relight.engine.guard.recording.journal import Journal
from relight.engine.guard.recording.prices import Prices
from relight.engine.guard.routes.regions import follow_routing
from relight.engine.options import pool_options, recorder_options
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.routing import RoutingTable
from relight.engine.runtime import Relight
from relight.engine.settings import Settings
from relight.engine.sync import SyncRelight
from relight.engine.tables.pools import open_pool
from relight.engine.topology.loading import load_topology


@asynccontextmanager
async def open_relight(settings: Settings, *, clock: Clock | None = None) -> AsyncIterator[Relight]:
    """A recorder and a pool on the servers that the settings lead to."""
    prices = Prices.load(settings.prices_file) if settings.prices_file else None
    async with AsyncExitStack() as stack:
        servers, service = await stack.enter_async_context(ready_servers(settings))
        pool = await stack.enter_async_context(await open_pool(servers.database_url, pool_options(settings)))
        recorder = await stack.enter_async_context(Recorder(recorder_options(servers, settings), clock=clock))
        recorder.beside(Journal, partial(Journal, recorder, content=settings.content_policy, prices=prices))
        beside: set[asyncio.Task[None]] = set()
        stack.push_async_callback(_ended, beside)
        if settings.count_calls:
            from relight.engine.guard.counting.counting import counting_calls  # the SDK takes a second to import

            await stack.enter_async_context(counting_calls(recorder))
        if settings.topology is not None:
            table = RoutingTable(recorder, load_topology(settings.topology).fleet.name)
            follow_routing(Breakers.beside(recorder), table)
            stack.callback(recorder.in_loop(table.run()).cancel)
        yield Relight(
            recorder,
            pool,
            region=recorder.options.region,
            tenant=settings.tenant,
            prices=prices,
            beside=beside,
            dispatches=service is not None,
        )


async def _ended(tasks: "set[asyncio.Task[None]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def open_relight_sync(settings: Settings, *, clock: Clock | None = None) -> Iterator[SyncRelight]:
    """`open_relight` for code without a loop: one runs in a thread of its own meanwhile."""
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(open_relight(settings, clock=clock)) as relight,
    ):
        yield SyncRelight(relight, portal)
