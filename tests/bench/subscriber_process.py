"""FastStream's batch pull subscriber in the projector's place, with the same fold, the same tables and the same heads.

As a process: `subscriber_process.py NATS_URL DATABASE_URL`, until it is terminated.
"""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.annotations import NatsMessage
from faststream.nats.message import NatsBatchMessage
from faststream.nats.subscriber.usecases.stream_pull_subscriber import BatchPullStreamSubscriber
from nats.aio.msg import Msg
from nats.js import api

from relight.engine.log.reader import Message
from relight.engine.log.topology import STREAM
from relight.engine.service import PROJECTOR_ROLE
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.deadletters import bury
from relight.engine.tables.folding import Folded
from relight.engine.tables.heads import Heads
from relight.engine.tables.projector import FOLDED_AT_ONCE
from relight.engine.tables.store import join_tables

TIMEOUT_S = 0.02
"""As long as the projector lingers."""
MAX_ACK_PENDING = 100_000

Done = Callable[[Sequence[Msg]], bool]
"""Told of each committed batch; whether it is to be acknowledged."""


@asynccontextmanager
async def subscribed(
    nats_url: str,
    database_url: str,
    *,
    batch_events: int,
    done: Done = lambda batch: True,
    ack: api.AckPolicy = api.AckPolicy.EXPLICIT,
    ack_wait_s: float = 30,
) -> AsyncIterator[float]:
    """Folds and commits, then acknowledges, until the `with` ends; gives the time when PostgreSQL was connected."""
    session = await connect_session(database_url, role=PROJECTOR_ROLE)
    connected_at = time.perf_counter()
    heads = Heads()
    broker = NatsBroker(nats_url, logger=None)

    async def project(message: NatsMessage) -> None:
        batch: Sequence[Msg] = message.raw_message  # type: ignore[assignment]
        folded = Folded()
        for first in range(0, len(batch), FOLDED_AT_ONCE):
            folded.fold(_message(one) for one in batch[first : first + FOLDED_AT_ONCE])
            await asyncio.sleep(0)
        async with session.transaction():
            await join_tables(session, folded.tables)
            moved = await heads.advance(session, folded.links)
            if folded.dead_letters:
                await bury(session, folded.dead_letters)
        heads.keep(moved)
        if not done(batch):
            return
        if ack is api.AckPolicy.ALL:
            await batch[-1].ack()
        else:
            assert isinstance(message, NatsBatchMessage)
            await message.ack()

    subscriber = broker.subscriber(
        ">",
        stream=JStream(STREAM, declare=False),
        durable="peer",
        config=api.ConsumerConfig(
            ack_policy=ack, ack_wait=ack_wait_s, max_ack_pending=MAX_ACK_PENDING, deliver_policy=api.DeliverPolicy.ALL
        ),
        pull_sub=PullSub(batch_size=batch_events, timeout=TIMEOUT_S, batch=True),
        ack_policy=AckPolicy.MANUAL,
        decoder=_undecoded,
    )
    assert isinstance(subscriber, BatchPullStreamSubscriber)
    subscriber(project)
    try:
        await broker.start()
        yield connected_at
    finally:
        await broker.stop()
        await session.close(timeout=2)


def sequence(message: Msg) -> int:
    return int(message.metadata.sequence.stream)


def _message(message: Msg) -> Message:
    at = message.metadata
    return Message(int(at.sequence.stream), round(at.timestamp.timestamp() * 1e9), message.subject, message.data)


async def _undecoded(message: NatsBatchMessage) -> list[bytes]:
    """Else FastStream would parse each body as JSON, too."""
    return [one.data for one in message.raw_message]


async def main(nats_url: str, database_url: str) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with subscribed(nats_url, database_url, batch_events=1_000):
        print("live", flush=True)
        await ended.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
