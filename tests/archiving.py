"""Archivers of one test, what they archive, and the archive read back."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from folding import event_id
from nats.aio.client import Client
from stack import encoded, failed, until

from relight.engine.archive.archiver import Archiver
from relight.engine.archive.hand import SealLimits
from relight.engine.archive.keys import kept_key
from relight.engine.archive.models import Manifest
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.store import ArchiveStore, FolderStore
from relight.engine.clock import Clock
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.log.chain import body_sha256
from relight.engine.log.reader import BEGINNING, Message, Reader
from relight.engine.log.topology import Headers, connect, ensure_stream
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.sealed import SealedTables
from relight.events.envelope import GENESIS

CLOCK = Clock()
SOON = SealLimits(events=100, seal_s=0.3)


class Publisher:
    """Publishes a chain with message ids, as recorders do."""

    def __init__(self, client: Client, name: str = "p-test") -> None:
        self.client = client
        self.name = name
        self.pseq = 0
        self.prev = GENESIS

    def made(self, *, n: int | None = None) -> tuple[str, bytes, str]:
        """Subject, body and message id of the next event."""
        self.pseq += 1
        id = event_id(CLOCK.now_us() // 1_000, hash((self.name, self.pseq)) & 0xFFFF_FFFF_FFFF)
        event = failed(self.pseq if n is None else n)
        subject, body = encoded(event, id=id, time=CLOCK.now(), pseq=self.pseq, prev=self.prev, publisher=self.name)
        self.prev = body_sha256(body)
        return subject, body, id

    async def publish(self, events: int) -> None:
        for _ in range(events):
            await send(self.client, *self.made())


async def send(client: Client, subject: str, body: bytes, id: str) -> int:
    return (await client.jetstream(timeout=10).publish(subject, body, headers={"Nats-Msg-Id": id})).seq


@asynccontextmanager
async def archiver(
    nats: EmbeddedNats,
    folder: Path,
    *,
    database: str | None = None,
    limits: SealLimits = SOON,
    store: ArchiveStore | None = None,
    **more: Any,
) -> AsyncIterator[tuple[Archiver, "asyncio.Task[None]"]]:
    """At work until the `with` ends, then stopped in order. Its key lies beside the archive."""
    client = await connect(nats.url, name="archiver", headers=Headers.MESSAGE_ID)
    await ensure_stream(client.jetstream(timeout=10))
    tables = None if database is None else SealedTables(lambda: connect_session(database, role="relight_projector"))
    work = Archiver(
        client,
        store or FolderStore(folder),
        lambda: kept_key(folder.parent / "key.pem"),
        limits=limits,
        clock=CLOCK,
        tables=tables,
        **more,
    )
    task = asyncio.create_task(work.run())
    try:
        yield work, task
    finally:
        work.stop()
        await asyncio.wait([task], timeout=20)
        assert task.done(), "the archiver does not end when it is stopped"
        task.result()
        await client.close()


async def sealed_once(nats: EmbeddedNats, folder: Path, *, limits: SealLimits = SOON, **more: Any) -> Archiver:
    """All that is on the stream now is sealed."""
    client = await connect(nats.url, name="archiver", headers=Headers.MESSAGE_ID)
    try:
        work = Archiver(
            client, FolderStore(folder), lambda: kept_key(folder.parent / "key.pem"), limits=limits, clock=CLOCK, **more
        )
        await work.run(once=True)
        return work
    finally:
        await client.close()


async def stream_messages(nats: EmbeddedNats) -> list[Message]:
    """With their message ids."""
    client = await connect(nats.url, name="test", headers=Headers.MESSAGE_ID)
    found: list[Message] = []
    try:
        async with Reader(client, BEGINNING) as reader:
            end = (await reader.state()).last_seq
            async for batch in reader.through(end, limit=10_000):
                found += batch
    finally:
        await client.close()
    return found


async def archived(folder: Path) -> tuple[list[Manifest], list[Message]]:
    """Every manifest, each following the one before, and every message of them."""
    reader = await ArchiveReader.open(FolderStore(folder))
    manifests = [manifest async for manifest, _ in reader.manifests()]
    return manifests, [message for manifest in manifests for message in await reader.messages(manifest)]


async def sealed_through(work: Archiver, seq: int) -> None:
    await until(lambda: work.seen().sealed_seq >= seq, f"sealed through {seq}")


def without_holes(messages: Sequence[Message]) -> bool:
    return [message.seq for message in messages] == list(range(1, len(messages) + 1))
