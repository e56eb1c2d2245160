"""What `relight archive` does: writes the archive, and says how it is."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta

from relight.engine.app.connections import CATCH_UP_S, clock, ready_servers
from relight.engine.archive.archiver import Archiver
from relight.engine.archive.following import Advanced, read_sealed
from relight.engine.archive.look import ArchiverLook
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.status import ArchiveStatus, OnStream, stream_beyond
from relight.engine.archive.store import open_store
from relight.engine.archive.trimming import StreamTrimmed, Trimming, TrimPlan
from relight.engine.archiving import CLOSING_S, archive_place, make_archiver
from relight.engine.embedded.home import running
from relight.engine.health.readiness import Readiness
from relight.engine.log.topology import Headers, close, connect
from relight.engine.options import recorder_options
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.running import SIGNALS
from relight.engine.service import PROJECTOR_ROLE, caught_up
from relight.engine.settings import Settings
from relight.engine.starting import Startup
from relight.engine.tables.connecting import connect_session
from relight.events.recorder import RecorderTrimmed

LOOK_EVERY_S = 0.25
PLATFORM = "-"


@dataclass(frozen=True, kw_only=True)
class Archived:
    """How it ended; `unsealed` messages were in hand and stay on the stream alone."""

    look: ArchiverLook
    unsealed: int


async def run_archive(
    settings: Settings,
    *,
    place: str | None,
    once: bool,
    told: Callable[[ArchiverLook], None],
    advanced: Advanced,
) -> Archived:
    """Until SIGTERM or SIGINT, or with `once` until all that is on the stream now is sealed.

    `told` is called now and then. A first signal seals what is in hand within `drain_s`, a second one does not wait.
    """
    where = archive_place(settings, place)
    async with AsyncExitStack() as stack:
        servers, service = await stack.enter_async_context(ready_servers(settings))
        if service is not None:
            await caught_up(service, within_s=CATCH_UP_S)
        startup = Startup(Readiness(), patient=not once)
        client = await startup.stream_client(servers.nats_url, name="relight archiver", headers=Headers.MESSAGE_ID)
        stack.push_async_callback(close, client)
        archiver = make_archiver(client, settings, place=where, database_url=servers.database, advanced=advanced)
        task = asyncio.create_task(archiver.run(once=once), name="archiver")
        stopped = _stopped_by_signals(archiver, task)
        while not task.done():
            await asyncio.wait([task], timeout=LOOK_EVERY_S)
            told(archiver.seen())
            if stopped.is_set():
                await asyncio.wait([task], timeout=settings.drain_s)
                if not task.done():
                    task.cancel()
                    await asyncio.wait([task], timeout=CLOSING_S)
        with suppress(asyncio.CancelledError):
            task.result()
        return Archived(look=archiver.seen(), unsealed=archiver.unsealed)


def _stopped_by_signals(archiver: Archiver, task: "asyncio.Task[None]") -> asyncio.Event:
    stopped = asyncio.Event()

    def stop() -> None:
        if stopped.is_set():
            task.cancel()
        stopped.set()
        archiver.stop()

    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop)
    return stopped


async def trim_stream(
    settings: Settings,
    *,
    place: str | None,
    keep: timedelta,
    dry_run: bool,
    decided_by: str,
    advanced: Advanced,
) -> TrimPlan | StreamTrimmed:
    """Raises `TrimRefused`, `ArchiveError`, `Unreachable`, `RebuildRefused`."""
    store = open_store(archive_place(settings, place))
    async with AsyncExitStack() as stack:
        archive = await ArchiveReader.open(store)
        servers, service = await stack.enter_async_context(ready_servers(settings))
        if service is not None:
            await caught_up(service, within_s=CATCH_UP_S)
        client = await connect(servers.nats_url, name="relight trim", headers=Headers.NONE)
        stack.push_async_callback(close, client)
        session = await connect_session(servers.database_url, role=PROJECTOR_ROLE, name="relight trim")
        stack.push_async_callback(session.close, timeout=2)
        older_than = clock().now() - keep
        trimming = Trimming(client, session, archive, older_than=older_than, advanced=advanced)
        if dry_run:
            return await trimming.plan()

        async def record(archive: str, through_seq: int) -> None:
            options = recorder_options(servers, settings.overridden({"tenant": PLATFORM}))
            async with Recorder(options, clock=clock()) as recorder:
                said = RecorderTrimmed(archive=archive, through_seq=through_seq, decided_by=decided_by)
                await recorder.record(said).reached(Ack.PROJECTED)

        return await trimming.run(record)


async def archive_status(settings: Settings, *, place: str | None, advanced: Advanced) -> ArchiveStatus:
    """Of the archive; and of the stream, where servers run. None is started for it."""
    store = open_store(archive_place(settings, place))
    archive = await ArchiveReader.open(store)
    sealed, _ = await read_sealed(archive, advanced)
    up = None if settings.nats_url else running(settings.home)
    url = settings.nats_url or (up.nats_url if up else None)
    beyond: OnStream | None = None
    if url is not None:
        client = await connect(url, name="relight archive status", headers=Headers.NONE)
        try:
            beyond = await stream_beyond(client, sealed.head, now=clock().now())
        finally:
            await close(client)
    return ArchiveStatus.of(sealed, place=store.place, stream=beyond)
