"""A service of one test: its application over real servers, with a recorder, and a client that sends to it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import stack
from faststream import FastStream
from nats.aio.client import Client
from nats.aio.msg import Msg
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry, generate_latest

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.health.models import Health
from relight.engine.health.probe import HealthProbe, Watched
from relight.engine.ingest import Ingest
from relight.engine.log.watermarks import ProjectedWatermarks
from relight.engine.messaging.application import build_application
from relight.engine.recorder.recorder import Recorder
from relight.engine.rulings import Rulings
from relight.engine.tables.connecting import connect_probe, connect_session
from relight.engine.tables.pools import Pool, PoolOptions, open_pool
from relight.engine.tables.projector import Projector

TIMEOUT_S = 20.0


@dataclass
class Messaging:
    """What a test sends to, and looks at."""

    nats: EmbeddedNats
    client: Client
    projector: Projector
    recorder: Recorder
    pool: Pool
    registry: CollectorRegistry
    application: FastStream

    async def send(self, subject: str, body: object, headers: Mapping[str, str] | None = None) -> Msg:
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        return await self.client.request(subject, raw, timeout=TIMEOUT_S, headers=dict(headers or {}))

    async def told(self, subject: str, body: object, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        answer: dict[str, Any] = orjson.loads((await self.send(subject, body, headers)).data)
        return answer

    async def rows(self, sql: str, *arguments: Any) -> list[dict[str, Any]]:
        async with self.pool.transaction("relight_projector") as connection:
            return [dict(row) for row in await connection.fetch(sql, *arguments)]

    def metrics(self) -> str:
        return generate_latest(self.registry).decode()


@asynccontextmanager
async def messaging(
    nats: EmbeddedNats,
    database: str,
    spools: Path | None,
    *,
    tracer_provider: TracerProvider | None = None,
    drain_s: float = 5,
    pool_size: int = 6,
    **recording: Any,
) -> AsyncIterator[Messaging]:
    """Projects, records and answers until the `with` ends, as `relight up` does."""
    async with AsyncExitStack() as entered:
        projecting = await entered.enter_async_context(_projecting(nats, database))
        client, projector = projecting
        pool = await entered.enter_async_context(await open_pool(database, PoolOptions(size=pool_size)))
        recorder = await entered.enter_async_context(Recorder(stack.options(nats, spools, **recording)))
        registry = CollectorRegistry()
        watched = Watched(
            client=client,
            connect=lambda: connect_probe(database),
            home=spools.parent if spools else Path("/tmp"),
            region="eu",
            pools={"requests": pool},
            projector=projector,
        )
        probe = await entered.enter_async_context(HealthProbe(watched))
        health: Callable[[], Awaitable[Health]] = probe.check
        application = build_application(
            nats.url,
            pool=pool,
            watermarks=ProjectedWatermarks(client),
            health=health,
            watch=projector.watch,
            registry=registry,
            ingest=Ingest(recorder),
            rulings=Rulings(recorder),
            drain_s=drain_s,
            tracer_provider=tracer_provider,
        )
        await application.start()
        entered.push_async_callback(application.stop)
        sender = await entered.enter_async_context(stack.connected(nats))
        yield Messaging(nats, sender, projector, recorder, pool, registry, application)


@asynccontextmanager
async def _projecting(nats: EmbeddedNats, database: str) -> AsyncIterator[tuple[Client, Projector]]:
    async with stack.connected(nats) as client:
        projector = Projector(client, lambda: connect_session(database, role="relight_projector"))
        task = asyncio.create_task(projector.run())
        try:
            yield client, projector
        finally:
            task.cancel()
            await asyncio.wait([task], timeout=TIMEOUT_S)
