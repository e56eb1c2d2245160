"""What runs beside the servers: the projector, and the answers that recorders ask for, as a FastStream application."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from faststream import FastStream
from nats.aio.client import Client
from prometheus_client import CollectorRegistry

from relight.engine.health import Health, HealthProbe
from relight.engine.ingest import Ingest
from relight.engine.log.reader import TRANSIENT
from relight.engine.log.recorder import Recorder
from relight.engine.log.topology import STREAM, connect, ensure_stream
from relight.engine.log.watermarks import ProjectedWatermarks
from relight.engine.messaging.application import build_application
from relight.engine.rulings import Rulings
from relight.engine.servers import Servers
from relight.engine.settings import Settings
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.migrate import migrate
from relight.engine.tables.pools import Pool, open_pool
from relight.engine.tables.projector import Projector
from relight.events.catalog import prepare

STATUS = "cmd.status"
PROJECTOR_ROLE: Final = "relight_projector"
POLL_S = 0.02

log = logging.getLogger(__name__)


class Service:
    """Runs inside `serving`; `health` is asked by whoever shows it."""

    def __init__(self, servers: Servers, settings: Settings, client: Client, pool: Pool) -> None:
        self.client = client
        self.projector = Projector(client, lambda: connect_session(servers.database_url, role=PROJECTOR_ROLE))
        self.pool = pool
        self.registry = CollectorRegistry()
        self._servers = servers
        self._settings = settings
        self._probe = HealthProbe(client, pool, self.projector, spools=settings.home / "spool")

    async def health(self) -> Health:
        return await self._probe.check()

    def application(self, recorder: Recorder | None = None) -> FastStream:
        """Built once, before it is started; with a recorder it takes events and rulings, too."""
        return build_application(
            self._servers.nats_url,
            pool=self.pool,
            watermarks=ProjectedWatermarks(self.client),
            health=self.health,
            watch=self.projector.watch,
            registry=self.registry,
            ingest=None if recorder is None else Ingest(recorder),
            rulings=None if recorder is None else Rulings(recorder),
            drain_s=self._settings.drain_s,
        )


@asynccontextmanager
async def projecting(servers: Servers, settings: Settings) -> AsyncIterator[Service]:
    """Migrates, declares the stream, and projects until the `with` ends; the batch in hand is finished then.

    The FastStream application is left to be built and started. Raises `Unreachable`, `MigrationError`.
    """
    prepare()
    client = await connect(servers.nats_url, name="relight projector", bodies_only=True)
    try:
        await ensure_stream(client.jetstream(timeout=10))
        async with await open_pool(servers.database_url) as pool:
            async with pool.acquire() as connection:
                await migrate(connection)
            service = Service(servers, settings, client, pool)
            projector = asyncio.create_task(service.projector.run(), name="projector")
            try:
                yield service
            finally:
                projector.cancel()
                with suppress(asyncio.CancelledError):
                    await projector
    finally:
        await client.close()


@asynccontextmanager
async def serving(servers: Servers, settings: Settings) -> AsyncIterator[Service]:
    """`projecting`, with the application started for the duration of the `with`."""
    async with projecting(servers, settings) as service:
        application = service.application()
        await application.start()
        try:
            yield service
        finally:
            await application.stop()


async def caught_up(service: Service, *, within_s: float) -> bool:
    """Waits until everything on the stream is in the tables; False when that takes longer."""
    deadline = asyncio.get_running_loop().time() + within_s
    while asyncio.get_running_loop().time() < deadline:
        with suppress(*TRANSIENT):
            last_seq = (await service.client.jetstream(timeout=5).stream_info(STREAM)).state.last_seq
            if service.projector.position is not None and service.projector.position.seq >= last_seq:
                return True
        await asyncio.sleep(POLL_S)
    return False
