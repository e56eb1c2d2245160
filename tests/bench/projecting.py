"""Events projected a second, in memory already and from the stream, beside PostgreSQL fed rows folded beforehand."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Self
from unittest.mock import patch

from measuring import Bench, Figure, alternate
from nats.aio.client import Client
from servers import connected, fill_stream, new_stream
from workload import encoded

from relight.engine.log.reader import Message
from relight.engine.log.topology import Headers
from relight.engine.service import PROJECTOR_ROLE
from relight.engine.tables import projector as projector_module
from relight.engine.tables.connecting import Session, connect_session
from relight.engine.tables.folding import Folded
from relight.engine.tables.projector import Projector
from relight.engine.tables.upserts import columns_of, upsert_sql
from relight.projections.catalog import tables

Statement = tuple[str, list[list[object]]]
TARGETS = {1_000: 0.8, 10_000: 0.75}
PEER_TARGET = 20.0


async def measure(bench: Bench) -> AsyncIterator[Figure]:
    rounds = bench.count(3, 2)
    sizes = {1_000: bench.count(20_000, 5_000), 10_000: bench.count(50_000, 20_000)}
    live: list[float] = []
    async with connected(bench, headers=Headers.NONE) as client:
        for size, events in sizes.items():
            ready, now = encoded(events), time.time_ns()
            await new_stream(client)
            await fill_stream(client, ready)
            told = [Message(seq, now, event.subject, event.body) for seq, event in enumerate(ready, start=1)]
            batches = [told[first : first + size] for first in range(0, events, size)]
            statements = [_statements(batch) for batch in batches]

            async def applied(batches: list[list[Message]] = batches, events: int = events) -> float:
                return events / await _apply(bench, client, batches, events)

            async def followed(size: int = size, events: int = events) -> float:
                return events / await follow(bench, client, size, events)

            async def fed(statements: list[list[Statement]] = statements, events: int = events) -> float:
                return events / await _feed(bench, statements)

            taken = await alternate(rounds, applied=applied, fed=fed, followed=followed)
            live = live or taken["followed"]
            yield Figure(
                name=f"applied, batches of {size:,}",
                unit="events/s",
                ours=taken["applied"],
                against="PostgreSQL fed folded rows",
                limit=taken["fed"],
                target=TARGETS[size],
                note="messages in memory: decode, fold, write",
            )
            yield Figure(
                name=f"projected, batches up to {size:,}",
                unit="events/s",
                ours=taken["followed"],
                against="PostgreSQL fed folded rows",
                limit=taken["fed"],
                target=TARGETS[size],
                note="the projector catching up with the stream from sequence 1",
            )
    try:
        from eventsourcing_peer import NOTE, peer_rates
    except ImportError:
        return  # needs eventsourcing[postgres]
    yield Figure(
        name="projected, batches up to 1,000",
        unit="events/s",
        ours=live,
        against="eventsourcing's ProjectionRunner",
        limit=await peer_rates(bench, rounds),
        target=PEER_TARGET,
        note=NOTE,
    )


def _statements(batch: Sequence[Message]) -> list[Statement]:
    folded = Folded()
    folded.fold(batch)
    assert not folded.dead_letters, folded.dead_letters[0]
    rows = {table: list(folded.tables.rows(table)) for table in tables()}
    return [(upsert_sql(table), columns_of(table, found)) for table, found in rows.items() if found]


async def _feed(bench: Bench, batches: Sequence[Sequence[Statement]]) -> float:
    """Seconds for these statements, a transaction for each batch."""
    async with bench.database() as url:
        session = await connect_session(url, role=PROJECTOR_ROLE)
        started = time.perf_counter()
        for statements in batches:
            async with session.transaction():
                for statement, columns in statements:
                    await session.execute(statement, *columns)
        seconds = time.perf_counter() - started
        await session.close()
        return seconds


async def _apply(bench: Bench, client: Client, batches: Sequence[Sequence[Message]], events: int) -> float:
    """Seconds for the projector's own work on batches that are read already."""
    with patch.object(projector_module, "Reader", lambda client, position: ReadBefore(batches)):
        return await follow(bench, client, events, events)


class ReadBefore:
    """In the reader's place: gives batches that are in memory, as the reader does when its buffer is full."""

    def __init__(self, batches: Sequence[Sequence[Message]]) -> None:
        self._batches = iter(batches)
        self.last_seq = batches[-1][-1].seq

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def batch(self, *, limit: int, linger_s: float, timeout_s: float) -> Sequence[Message]:
        if (batch := next(self._batches, None)) is None:
            await asyncio.sleep(linger_s)
        return batch or ()


async def follow(bench: Bench, client: Client, size: int, events: int) -> float:
    """Seconds from connected to the commit of the last event."""
    connected_at: list[float] = []

    async def connect() -> Session:
        session = await connect_session(url, role=PROJECTOR_ROLE)
        # Not when somebody sees that it runs: a fold keeps the loop, and would be over before the clock starts.
        connected_at.append(time.monotonic())
        return session

    async with bench.database() as url:
        projector = Projector(client, connect, batch_events=size)
        running = asyncio.create_task(projector.run(stand_by=False))
        await _until(running, lambda: projector.position is not None and projector.position.seq >= events)
        seconds = projector.moved_at - connected_at[0]
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        assert len(connected_at) == 1, "the projector had to connect again"
        return seconds


async def _until(running: "asyncio.Task[None]", reached: Callable[[], bool]) -> None:
    while not reached():
        await asyncio.wait([running], timeout=0.002)
        if running.done():
            await running
