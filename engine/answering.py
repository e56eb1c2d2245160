"""What the service answers over NATS, as a FastStream application: how far a publisher is projected, and its health."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import orjson
from faststream import FastStream
from faststream.nats import NatsBroker
from nats.errors import Error as NatsError
from pydantic import BaseModel

from relight.engine.health.asking import STATUS
from relight.engine.health.document import flat
from relight.engine.health.models import Health
from relight.engine.log.topology import RECONNECT_S
from relight.engine.log.watermarks import QUESTION, announcement
from relight.engine.tables.pools import PROJECTOR_ROLE, Pool


class WatermarkQuestion(BaseModel):
    """Asked on `cmd.watermark`: how far is this publisher projected?"""

    publisher: str
    pseq: int


def build_application(
    nats_url: str, *, pool: Pool, health: Callable[[], Awaitable[Health]], watch: Callable[[str], None]
) -> FastStream:
    """Not started yet. `watch` hears whose progress is asked for."""
    broker = NatsBroker(
        nats_url,
        name="relight service",
        # By default it gives up after two minutes, for good.
        max_reconnect_attempts=-1,
        reconnect_time_wait=RECONNECT_S,  # type: ignore[arg-type]  # it sleeps so long: fractions will do
        connect_timeout=2,
        ping_interval=5,
        max_outstanding_pings=2,
        logger=None,
    )

    @broker.subscriber(QUESTION)
    async def watermark(question: WatermarkQuestion) -> bytes:
        """From the tables themselves: what is committed, whoever projects."""
        watch(question.publisher)
        async with pool.transaction(PROJECTOR_ROLE) as connection:
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

    @broker.subscriber(STATUS)
    async def status() -> bytes:
        return orjson.dumps(flat(await health()))

    return FastStream(broker, logger=None)


async def stop_application(app: FastStream) -> None:
    """Takes no more messages and answers those at hand; a server that is away is left without a word."""
    client = await app.brokers[0].connect()
    try:
        with suppress(NatsError, OSError):
            await app.stop()
    finally:
        if not client.is_closed:
            await client.close()
