"""What `relight verify` does: audits stream, tables and archive, or an archive alone."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from nats.aio.client import Client
from nats.js.errors import NotFoundError

from relight.engine.app.connections import CATCH_UP_S, clock, ready_servers
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.store import open_store
from relight.engine.audit.archive import Checked, Known, KnownHead, check_archive
from relight.engine.audit.auditing import audit
from relight.engine.audit.known import ArchiveHead, SealedHead, read_archives, read_sealed
from relight.engine.audit.models import Finding
from relight.engine.audit.report import Audit
from relight.engine.audit.spools import acknowledged_heads
from relight.engine.errors import ArchiveDamaged, Unreachable
from relight.engine.log.reader import TRANSIENT
from relight.engine.log.topology import STREAM, Headers, close, connect
from relight.engine.service import PROJECTOR_ROLE, caught_up
from relight.engine.settings import Settings
from relight.engine.tables.connecting import Session, connect_session

SPOOLS = "spool"
Advanced = Callable[[str, int, int], None]
"""Told of what is looked at, how far that is, and of how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """`stream` is None where an archive was checked alone, `archive` where there is none."""

    stream: Audit | None = None
    archive: Checked | None = None

    @property
    def findings(self) -> list[Finding]:
        """Of the stream first, each in its order."""
        return [*(self.stream.findings if self.stream else ()), *(self.archive.findings if self.archive else ())]


async def verify_archive(settings: Settings, where: str, *, trust: str | None, advanced: Advanced) -> Verified:
    """Without any server. Raises `ArchiveError`, `SettingsError`."""
    known = Known(trust=trust or settings.archive_trust)
    store = open_store(where)
    return Verified(
        archive=await check_archive(store, known=known, advanced=lambda done, of: advanced("segments", done, of))
    )


async def verify_stream(
    settings: Settings, *, trust: str | None, publisher: str | None, tenant: str | None, advanced: Advanced
) -> Verified:
    """The stream beside tables, spools of this machine, and the archive that the settings name, which is checked too.

    Raises `Unreachable`, `ArchiveError`, `Rewound`.
    """
    async with _connected(settings) as (client, session):
        checked, reader = None, None
        if settings.archive is not None:
            known = await _known(settings.archive, session, trust or settings.archive_trust)
            store = open_store(settings.archive)
            checked = await check_archive(store, known=known, advanced=lambda done, of: advanced("segments", done, of))
            reader = await ArchiveReader.open_damaged(store)
        spools = await asyncio.to_thread(acknowledged_heads, settings.home / SPOOLS)
        try:
            found = await audit(
                client,
                session,
                now=clock().now(),
                archive=reader,
                spools=spools,
                publisher=publisher,
                tenant=tenant,
                advanced=lambda seq, end: advanced("messages", seq, end),
            )
        except (*TRANSIENT, NotFoundError) as error:
            raise Unreachable(
                f"stream {STREAM} cannot be read ({str(error) or type(error).__name__}): is NATS up, and did relight"
                " run there?"
            ) from error
    return Verified(stream=found, archive=checked)


async def _known(where: str, session: Session, trust: str | None) -> Known:
    """What the tables know of this archive: asked before it is read, since it grows."""
    try:
        archive = (await ArchiveReader.open_damaged(open_store(where))).root.archive
    except ArchiveDamaged:
        archive = None
    archives, sealed = await read_archives(session), await read_sealed(session)
    if archive not in {head.archive for head in archives}:
        here = [head.archive for head in archives if head.place == open_store(where).place]
        if not here:
            return Known(trust=trust)
        archive = here[0]  # another lies in its place
    return _of_archive(archive or "", archives, sealed, trust)


def _of_archive(
    archive: str, archives: list[ArchiveHead], sealed: list[tuple[str, SealedHead]], trust: str | None
) -> Known:
    return Known(
        trust=trust,
        archive=archive,
        heads=[
            KnownHead(segment=head.segment, manifest_sha256=head.manifest_sha256, said_by="the table archives")
            for head in archives
            if head.archive == archive
        ],
        publishers={publisher: (head.pseq, head.sha256) for publisher, head in sealed if head.archive == archive},
    )


@asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[tuple[Client, Session]]:
    """On servers of ours, after all is projected."""
    async with ready_servers(settings) as (servers, service):
        if service is not None:
            await caught_up(service, within_s=CATCH_UP_S)
        client = await connect(servers.nats_url, name="relight verify", headers=Headers.MESSAGE_ID)
        try:
            session = await connect_session(servers.database_url, role=PROJECTOR_ROLE, name="relight verify")
            try:
                yield client, session
            finally:
                await session.close(timeout=2)
        finally:
            await close(client)
