"""The archiver as the settings want it, and as a part of a process that serves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from nats.aio.client import Client

from relight.engine.archive.archiver import Archiver
from relight.engine.archive.contents import ContentKeeper
from relight.engine.archive.following import Advanced
from relight.engine.archive.hand import SealLimits
from relight.engine.archive.history import OpenArchive
from relight.engine.archive.keys import SigningKey, kept_key, sealing_key_path
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.store import open_store
from relight.engine.clock import Clock
from relight.engine.errors import SettingsError
from relight.engine.log.topology import REQUEST_TIMEOUT_S
from relight.engine.servers import Servers
from relight.engine.settings import Settings
from relight.engine.stopping import Stopping
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.pools import PROJECTOR_ROLE
from relight.engine.tables.sealed import SealedTables

SEGMENT = 0.98
"""Share of the drain time: whoever records and projects comes before."""
CLOSING_S = 2.0


def archive_place(settings: Settings, given: str | None = None) -> str:
    """Raises `SettingsError` where nothing says one."""
    place = given or settings.archive
    if place is None:
        raise SettingsError("nothing says where the archive lies: set RELIGHT_ARCHIVE, or name it in the command")
    return place


def archive_opener(settings: Settings) -> OpenArchive | None:
    """None where no archive is set."""
    place = settings.archive
    if place is None:
        return None
    return lambda: ArchiveReader.open(open_store(place))


def archive_key(settings: Settings) -> SigningKey:
    """Made when it is first needed. Raises `ArchiveError`."""
    return kept_key(sealing_key_path(settings.home, settings.archive_key))


def make_archiver(
    client: Client,
    settings: Settings,
    *,
    place: str,
    database_url: str | None,
    advanced: Advanced | None = None,
) -> Archiver:
    """Not begun yet; `client` reads message ids. Contents that events refer to are kept with them.

    Raises `SettingsError`, `ArchiveError`.
    """
    store = open_store(place)
    tables = None
    if database_url is not None:
        tables = SealedTables(
            partial(
                connect_session,
                database_url,
                role=PROJECTOR_ROLE,
                statement_timeout_s=settings.session_statement_timeout_s,
                name="relight-archiver",
            )
        )
    return Archiver(
        client,
        store,
        partial(archive_key, settings),
        limits=SealLimits(events=settings.archive_seal_events, seal_s=settings.archive_seal_s),
        clock=Clock(),
        tables=tables,
        keep=ContentKeeper(client.jetstream(timeout=REQUEST_TIMEOUT_S), store).keep,
        advanced=advanced,
    )


@asynccontextmanager
async def archiving(
    client: Client, servers: Servers, settings: Settings, stopping: Stopping
) -> AsyncIterator["tuple[Archiver, asyncio.Task[None]]"]:
    """An archiver at work, and its task; leaving seals what is in hand."""
    archiver = make_archiver(client, settings, place=archive_place(settings), database_url=servers.database_url)
    running = asyncio.create_task(archiver.run(), name="archiver")
    try:
        yield archiver, running
    finally:
        archiver.stop()
        if not await stopping.within(SEGMENT, _over(running)):
            running.cancel()
            await asyncio.wait([running], timeout=CLOSING_S)
        if archiver.unsealed:
            stopping.cuts(f"{archiver.unsealed} messages were read and not sealed: they will be read again")


async def _over(running: "asyncio.Task[None]") -> None:
    await asyncio.wait([running])
