"""Healing as a part of the service, and a round of it for whoever asks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from relight.engine import scope
from relight.engine.archive.store import open_store
from relight.engine.errors import AckNotProven
from relight.engine.healing.healer import LOST_AFTER
from relight.engine.healing.watching import Healing, watch
from relight.engine.log.topology import Headers, connect
from relight.engine.options import recorder_options
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.servers import Servers
from relight.engine.settings import Settings
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.pools import PROJECTOR_ROLE
from relight.events.base import Event
from relight.events.envelope import PLATFORM

ENDING_S = 2.0


@asynccontextmanager
async def healing_beside(
    servers: Servers, settings: Settings, recorder: Recorder | None, *, turn: Callable[[], bool] = lambda: True
) -> AsyncIterator[None]:
    """Watches until the `with` ends; what is healed is recorded by `recorder`, or by one of its own for the while.

    `turn`: whether it is for this process to heal now.
    """
    watching = asyncio.create_task(watch(healing_of(servers, settings, recorder, turn=turn)), name="healing")
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait([watching], timeout=ENDING_S)


def healing_of(
    servers: Servers,
    settings: Settings,
    recorder: Recorder | None,
    *,
    lost_after: timedelta = LOST_AFTER,
    turn: Callable[[], bool] = lambda: True,
) -> Healing:
    return Healing(
        open_client=lambda: connect(servers.nats_url, name="relight healing", headers=Headers.MESSAGE_ID),
        open_session=lambda: connect_session(
            servers.database_url, role=PROJECTOR_ROLE, statement_timeout_s=settings.session_statement_timeout_s
        ),
        say=_saying(recorder, servers, settings),
        store=None if settings.archive is None else open_store(settings.archive),
        lost_after=lost_after,
        turn=turn,
    )


def _saying(
    recorder: Recorder | None, servers: Servers, settings: Settings
) -> Callable[[Sequence[Event]], Awaitable[None]]:
    async def say(events: Sequence[Event]) -> None:
        if recorder is not None:
            await _record(recorder, events)
            return
        async with Recorder(recorder_options(servers, settings)) as own:
            await _record(own, events)

    return say


async def _record(recorder: Recorder, events: Sequence[Event]) -> None:
    with scope.entered(tenant=PLATFORM):
        receipts = [recorder.record(event) for event in events]
    for receipt in receipts:
        with suppress(AckNotProven):  # without a spool on disk; it is on its way all the same
            await receipt.reached(Ack.SPOOLED)
