"""Streams sealed into archives without an archiver, and messages to seal."""

from collections.abc import Sequence
from pathlib import Path

from stack import NOW, until

from relight.engine.archive.keys import kept_key
from relight.engine.archive.sealing import add_segment, found_archive
from relight.engine.archive.segment import Head, seal
from relight.engine.archive.store import ArchiveStore, FolderStore
from relight.engine.log.reader import BEGINNING, Message, Reader
from relight.engine.log.topology import Headers, close, connect

SEGMENT = 300


async def read_stream(nats_url: str, *, after: int = 0) -> list[Message]:
    """Everything that stands there now, with its message ids."""
    client = await connect(nats_url, name="test archiver", headers=Headers.MESSAGE_ID)
    found: list[Message] = []
    try:
        await until(lambda: client.is_connected)
        async with Reader(client, BEGINNING) as reader:
            end = (await reader.state()).last_seq
            reader.begin_after(after)
            async for messages in reader.through(end, limit=10_000):
                found += messages
    finally:
        await close(client)
    return found


async def seal_all(
    folder: Path, messages: Sequence[Message], after: Head | None = None, *, incarnation: int = 1, size: int = SEGMENT
) -> tuple[ArchiveStore, Head]:
    """Into segments of `size` behind `after`, or behind nothing."""
    store, key = FolderStore(folder), kept_key(folder.with_suffix(".pem"))
    head = after or Head(archive=(await found_archive(store, key, now=NOW)).root.archive)
    for first in range(0, len(messages), size):
        part = messages[first : first + size]
        head = await add_segment(store, seal(part, head, incarnation=incarnation, key=key, sealed_at=NOW))
    return store, head


def same(found: Sequence[Message], wanted: Sequence[Message]) -> bool:
    """All but for the stream's timestamps."""
    return [_untimed(message) for message in found] == [_untimed(message) for message in wanted]


def _untimed(message: Message) -> tuple[int, str, bytes, str]:
    return message.seq, message.subject, message.body, message.message_id
