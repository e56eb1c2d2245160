"""What runs beside the servers: the projector, and the answers that recorders ask for, as a FastStream application."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import orjson
from faststream import FastStream
from faststream.nats import NatsBroker
from nats.aio.client import Client
from pydantic import BaseModel

from relight.engine.health.asking import STATUS as STATUS
from relight.engine.health.document import flat
from relight.engine.health.models import Health
from relight.engine.health.probe import HealthProbe, Watched
from relight.engine.health.readiness import Readiness
from relight.engine.log.proof import Prober
from relight.engine.log.reader import TRANSIENT
from relight.engine.log.topology import STREAM, connect, ensure_stream
from relight.engine.log.watermarks import QUESTION, announcement
from relight.engine.servers import Servers
from relight.engine.settings import Settings
from relight.engine.tables.connecting import connect_probe, connect_session
from relight.engine.tables.migrate import migrate
from relight.engine.tables.pools import Pool, open_pool
from relight.engine.tables.projector import Projector
from relight.events.catalog import prepare

PROJECTOR_ROLE: Final = "relight_projector"
POLL_S = 0.02

log = logging.getLogger(__name__)


class WatermarkQuestion(BaseModel):
    """Asked on `cmd.watermark`: how far is this publisher projected?"""

    publisher: str
    pseq: int


class Service:
    """Runs inside `serving`; `probe` is asked by whoever shows how it is, `readiness` set by whoever serves."""

    def __init__(self, servers: Servers, settings: Settings, client: Client, pool: Pool) -> None:
        self.client = client
        self.projector = Projector(client, lambda: connect_session(servers.database_url, role=PROJECTOR_ROLE))
        self.broker = NatsBroker(servers.nats_url, logger=None)
        self.app = FastStream(self.broker, logger=None)
        self.pool = pool
        self.readiness = Readiness()
        self.probe = HealthProbe(
            Watched(
                client=client,
                connect=lambda: connect_probe(servers.database_url),
                home=settings.home,
                region=settings.region,
                pools={"requests": pool},
                projector=self.projector,
                prober=Prober(client, monitor_urls=servers.monitors, ttl_s=settings.proof_ttl_s),
            )
        )
        self.broker.subscriber(QUESTION)(self._answer_watermark)
        self.broker.subscriber(STATUS)(self._answer_status)

    async def health(self) -> Health:
        return await self.probe.check()

    async def _answer_watermark(self, question: WatermarkQuestion) -> bytes:
        """From the tables themselves: what is committed, whoever projects."""
        self.projector.watch(question.publisher)
        async with self.pool.transaction(PROJECTOR_ROLE) as connection:
            projected = await connection.fetchval(
                # The asked number, where it was seen above a gap; else up to where none is missing.
                "SELECT CASE WHEN highest_pseq >= $2 AND NOT EXISTS ("
                " SELECT FROM publisher_gaps WHERE publisher = $1 AND $2 BETWEEN first_pseq AND last_pseq)"
                " THEN greatest(contiguous_pseq, $2) ELSE contiguous_pseq END"
                " FROM publisher_heads WHERE publisher = $1",
                question.publisher,
                question.pseq,
            )
            dead = await connection.fetch(
                "SELECT pseq, reason FROM dead_letters WHERE publisher = $1 AND pseq = $2 AND resolved_at IS NULL",
                question.publisher,
                question.pseq,
            )
        return announcement(projected or 0, {row["pseq"]: row["reason"] for row in dead})

    async def _answer_status(self) -> bytes:
        return orjson.dumps(flat(await self.probe.check()))


@asynccontextmanager
async def projecting(servers: Servers, settings: Settings) -> AsyncIterator[Service]:
    """Migrates, declares the stream, and projects until the `with` ends; the batch in hand is finished then.

    The FastStream application `Service.app` is left to be started. Raises `Unreachable`, `MigrationError`.
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
            service.probe.vital.watch("projector", projector)
            try:
                yield service
            finally:
                await service.probe.close()
                projector.cancel()
                with suppress(asyncio.CancelledError):
                    await projector
    finally:
        await client.close()


@asynccontextmanager
async def serving(servers: Servers, settings: Settings) -> AsyncIterator[Service]:
    """`projecting`, with the application started for the duration of the `with`."""
    async with projecting(servers, settings) as service:
        await service.app.start()
        try:
            yield service
        finally:
            await service.app.stop()


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
