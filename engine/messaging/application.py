"""The FastStream application: what it listens to, of parts that it is handed; it connects when it is started."""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

from faststream import FastStream
from nats.errors import Error as NatsError
from nats.errors import SlowConsumerError
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider
from prometheus_client import CollectorRegistry

from relight.engine.health.models import Health
from relight.engine.ingest import Ingest
from relight.engine.log.topology import close
from relight.engine.log.watermarks import ProjectedWatermarks
from relight.engine.messaging.broker import build_broker, stop_taking
from relight.engine.messaging.commands import Commands
from relight.engine.messaging.ingest import EventsTaken
from relight.engine.messaging.querying import Queries
from relight.engine.messaging.telemetry import MessageCounts, middlewares
from relight.engine.rulings import Rulings
from relight.engine.tables.pools import Pool

DRAIN_S = 10.0

log = logging.getLogger(__name__)


def build_application(
    nats_url: str,
    *,
    pool: Pool,
    watermarks: ProjectedWatermarks,
    health: Callable[[], Awaitable[Health]],
    watch: Callable[[str], None],
    registry: CollectorRegistry,
    ingest: Ingest | None = None,
    rulings: Rulings | None = None,
    drain_s: float = DRAIN_S,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> FastStream:
    """Commands, and with `ingest` also events. `watch` is told each publisher whose progress somebody waits for.

    Stopping it leaves new messages to other replicas at once, and gives those at hand `drain_s`. Its metrics stand in
    `registry`; a tracer or meter provider that is not given is the process's global one.
    """
    counts = MessageCounts(registry)
    commands = Commands(
        pool=pool, queries=Queries(pool, watermarks), rulings=rulings, health=health, watch=watch, counts=counts
    )

    async def on_error(error: Exception) -> None:
        if isinstance(error, SlowConsumerError):
            counts.dropped.inc()
        log.warning("NATS: %r", error, extra={"action": "nats_error"})

    begun: Counter[str] = Counter()
    broker = build_broker(
        nats_url,
        on_event=None if ingest is None else EventsTaken(ingest, counts).take,
        on_command=commands.obey,
        on_question=commands.overhear,
        middlewares=middlewares(registry, tracer_provider, meter_provider),
        on_error=on_error,
        begun=begun,
    )

    async def leave() -> None:
        await stop_taking(broker, begun, within_s=drain_s)

    return FastStream(broker, logger=None, on_shutdown=[leave])


async def stop_application(app: FastStream) -> None:
    """Takes no more messages and answers those at hand; a server that is away is left without a word."""
    client = await app.brokers[0].connect()
    try:
        with suppress(NatsError, OSError, RuntimeError):  # as of `close`
            await app.stop()
    finally:
        if not client.is_closed:
            await close(client)
