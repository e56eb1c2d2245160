"""What `relight restore` brings back: stream, contents, tables."""

import asyncio
import time
from collections.abc import Callable
from functools import partial

from pydantic import BaseModel, ConfigDict

from relight.engine.archive.closed_stream import ClosedStream
from relight.engine.archive.content_restoring import RestoredContents, damaged_contents, restore_contents
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.reel import Reel
from relight.engine.archive.reel_survey import survey
from relight.engine.archive.restoring import Fate, restore_stream
from relight.engine.archive.seen_contents import SeenContents, missing_contents
from relight.engine.archive.store import ArchiveStore, open_store
from relight.engine.audit.models import Finding, Kind
from relight.engine.errors import RestoreRefused, Unreachable
from relight.engine.log.content_store import ContentStore
from relight.engine.log.regional_contents import erase_regional
from relight.engine.log.topology import REQUEST_TIMEOUT_S, STREAM, Headers, close, connect
from relight.engine.servers import Servers, found_servers
from relight.engine.settings import Settings
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.digest import Digest, digest_postgres
from relight.engine.tables.migrate import migrate
from relight.engine.tables.pools import PROJECTOR_ROLE
from relight.engine.tables.projector import Projector

POLL_S = 0.05
STANDS_STILL_S = 120.0
"""So long without any progress of the projector, and waiting for it ends."""

Advanced = Callable[[str, int, int | None], None]
"""Told of the stage ("events", "contents", "tables"), how much of it is done, and of how much, if that is known."""


class Restored(BaseModel):
    """What was, or with `dry_run` would be, brought back.

    `findings`: what the archive does not hold as it was sealed. `missing_contents`: how many contents events refer to
    that it lacks, although nobody erased them.
    """

    model_config = ConfigDict(frozen=True)

    archive: str
    place: str
    dry_run: bool
    segments: int
    restored: int
    already: int
    copied: int
    last_seq: int
    contents: RestoredContents
    missing_contents: int
    findings: tuple[Finding, ...]
    stream_took_s: float = 0
    took_s: float = 0
    digest: Digest | None = None


async def restore(
    settings: Settings, where: str, *, replicas: int, strict: bool, dry_run: bool, advanced: Advanced
) -> Restored:
    """Raises `RestoreRefused`, `ArchiveDamaged`, `ArchiveUnreachable`, `Unreachable`."""
    store = open_store(where)
    reader = await ArchiveReader.open_damaged(store)
    restoring = _Restoring(store, reader, Reel(reader, await survey(reader)), advanced)
    if dry_run or strict:
        found = await restoring.rehearse()
        if dry_run:
            return found
        if found.findings:
            raise RestoreRefused(
                f"archive {store.place} is damaged, {len(found.findings)} findings: {found.findings[0].detail} …"
                " (--dry-run lists them); nothing is restored: without --strict all the rest would be"
            )
    async with found_servers(settings) as servers:
        return await restoring.run(servers, replicas)


class _Restoring:
    def __init__(self, store: ArchiveStore, reader: ArchiveReader, reel: Reel, advanced: Advanced) -> None:
        self._store = store
        self._reader = reader
        self._reel = reel
        self._advanced = advanced
        self._counts = dict.fromkeys(Fate, 0)
        self._seen = SeenContents()

    async def rehearse(self) -> Restored:
        """Reads all of it, and asks no server."""
        async for messages in self._reel.messages():
            self._seen.see(messages)
            self._count(Fate.RESTORED, len(messages))
        async for copies in self._reel.copies():
            self._seen.see(copies)
            self._count(Fate.COPIED, len(copies))
        damaged = tuple(await damaged_contents(self._store, partial(self._advanced, "contents")))
        contents = RestoredContents(erased=len(self._seen.erased), damaged=damaged)
        found = await self._result(contents, dry_run=True)
        self._counts, self._seen = dict.fromkeys(Fate, 0), SeenContents()
        return found

    async def run(self, servers: Servers, replicas: int) -> Restored:
        began = time.monotonic()
        client = await connect(servers.nats_url, name="relight restore", headers=Headers.NONE)
        try:
            stream = ClosedStream(client, self._reader.root.archive, replicas=replicas)
            await restore_stream(self._reel, stream, self._seen, self._count)
            stream_took_s = time.monotonic() - began
            contents = await restore_contents(
                self._store, ContentStore(client), self._seen.erased, partial(self._advanced, "contents")
            )
            # What was erased must not come back from a region's own copies, either.
            js = client.jetstream(timeout=REQUEST_TIMEOUT_S)
            await erase_regional(client, js, [(*reference, by) for reference, by in self._seen.erased.items()])
            # Only now others may read and write: contents lie there before the events that refer to them.
            await stream.open()
            found = await self._result(contents)
            digest = await fold_tables(servers, partial(self._advanced, "tables"))
        finally:
            await close(client)
        took_s = time.monotonic() - began
        return found.model_copy(update={"stream_took_s": stream_took_s, "took_s": took_s, "digest": digest})

    def _count(self, fate: Fate, messages: int) -> None:
        self._counts[fate] += messages
        done = sum(self._counts.values())
        self._advanced("events", done, max(done, self._reel.survey.messages))

    async def _result(self, contents: RestoredContents, *, dry_run: bool = False) -> Restored:
        return Restored(
            archive=self._reader.root.archive,
            place=self._store.place,
            dry_run=dry_run,
            segments=self._reel.survey.segments,
            restored=self._counts[Fate.RESTORED],
            already=self._counts[Fate.ALREADY],
            copied=self._counts[Fate.COPIED],
            last_seq=self._reel.last_seq,
            contents=contents,
            missing_contents=len(await missing_contents(self._store, self._seen)),
            findings=(*self._reel.findings, *map(_damaged, contents.damaged)),
        )


def _damaged(name: str) -> Finding:
    return Finding(kind=Kind.DAMAGED, where="archive", detail=f"{name} cannot be read any more")


async def fold_tables(servers: Servers, advanced: Callable[[int, int], None]) -> Digest:
    """Brings the tables up to the stream's end, by a projector of our own unless another is at work, and digests them.

    Raises `Unreachable`, `MigrationError`.
    """
    session = await connect_session(servers.database_url)
    try:
        await migrate(session)
    finally:
        await session.close(timeout=2)
    client = await connect(servers.nats_url, name="relight restore", headers=Headers.NONE)
    projector = Projector(client, partial(connect_session, servers.database_url, role=PROJECTOR_ROLE))
    running = asyncio.create_task(projector.run(), name="projector")
    try:
        end = (await client.jetstream(timeout=REQUEST_TIMEOUT_S).stream_info(STREAM)).state.last_seq
        while (seq := projector.position.seq if projector.position else 0) < end:
            if time.monotonic() - projector.moved_at > STANDS_STILL_S:
                raise Unreachable(
                    f"stream and contents are restored, but the tables stand still at {seq} of {end}"
                    f" ({projector.failure}): `relight up` or `relight serve` goes on with them"
                )
            advanced(seq, end)
            await asyncio.sleep(POLL_S)
    finally:
        running.cancel()
        await asyncio.wait([running])
        await close(client)
    session = await connect_session(servers.database_url, role=PROJECTOR_ROLE)
    try:
        return await digest_postgres(session)
    finally:
        await session.close(timeout=2)
