"""A rebuild of all ten projections a second of events, beside the live projector catching up with the same stream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial

from measuring import Bench, Figure, alternate
from projecting import _until
from servers import connected, fill_stream, new_stream
from workload import encoded

from relight.engine.clock import Clock
from relight.engine.log.topology import Headers
from relight.engine.service import PROJECTOR_ROLE
from relight.engine.tables.connecting import Session, connect_session
from relight.engine.tables.projector import Projector
from relight.engine.tables.rebuild import Rebuild, Rebuilt
from relight.projections.catalog import projections

TARGET = 1.5


async def measure(bench: Bench) -> AsyncIterator[Figure]:
    events, rounds = bench.count(200_000, 100_000), bench.count(3, 2)
    rebuilt: list[Rebuilt] = []
    async with connected(bench, headers=Headers.NONE) as client:
        await new_stream(client)
        await fill_stream(client, encoded(events))
        async with bench.database() as kept:
            await _project(client, kept, events)

            async def live() -> float:
                async with bench.database() as url:
                    return events / await _project(client, url, events)

            async def anew() -> float:
                connect = partial(connect_session, kept, role=PROJECTOR_ROLE)
                sessions = [await connect() for _ in range(2)]
                rebuild = Rebuild(client, *sessions, projections(), clock=Clock(), connect=connect)
                rebuilt.append(await rebuild.run())
                for session in sessions:
                    await session.close()
                assert not rebuilt[-1].differing
                return rebuilt[-1].events_per_s

            taken = await alternate(rounds, anew=anew, live=live)
    yield Figure(
        name="rebuilt, with indexes and statistics",
        unit="events/s",
        ours=taken["anew"],
        against="the projector catching up",
        limit=taken["live"],
        target=TARGET,
    )
    yield Figure(name="in the swap, reads wait", unit="ms", ours=[done.reads_waited_s * 1_000 for done in rebuilt])
    yield Figure(name="in the swap, writes wait", unit="ms", ours=[done.writes_waited_s * 1_000 for done in rebuilt])


async def _project(client: object, url: str, events: int) -> float:
    """Seconds from the first connection to the last commit."""
    connected_at: list[float] = []

    async def connect() -> Session:
        session = await connect_session(url, role=PROJECTOR_ROLE)
        connected_at.append(asyncio.get_running_loop().time())
        return session

    projector = Projector(client, connect)  # type: ignore[arg-type]
    running = asyncio.create_task(projector.run(stand_by=False))
    await _until(running, lambda: projector.position is not None and projector.position.seq >= events)
    seconds = projector.moved_at - connected_at[0]
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    return seconds
