"""Brings what is known of an archive up to its last segment, from the latest checkpoint that is right."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from relight.engine.archive.chains import SealedHead
from relight.engine.archive.checkpoint import load_checkpoint
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.sealed import Sealed
from relight.engine.archive.segment import Head
from relight.engine.errors import ArchiveDamaged
from relight.engine.log.links import Link, link_of
from relight.engine.log.reader import Message

Advanced = Callable[[int, int], None]
"""Is told the segment that is taken, and the last one."""

log = logging.getLogger(__name__)


def links_of(messages: Sequence[Message]) -> list[Link]:
    return [link for message in messages if (link := link_of(message)) is not None]


async def read_sealed(reader: ArchiveReader, advanced: Advanced | None = None) -> tuple[Sealed, int]:
    """From the latest checkpoint that is right and the segments after it; and the checkpoint's segment.

    A segment that is damaged is left out: what is sealed goes on behind it. Raises `ArchiveDamaged` where the last
    manifest is: then nobody can say what comes next.
    """
    segments = await reader.segments()
    last = segments[-1] if segments else 0
    sealed = await load_checkpoint(reader, last) or Sealed(head=Head(archive=reader.root.archive))
    checkpoint = sealed.head.segment
    for segment in sorted(sealed.unread):  # it may have been put right since
        await _take_again(reader, sealed, segment)
    await follow(reader, sealed, last, advanced)
    return sealed, checkpoint


async def follow(
    reader: ArchiveReader, sealed: Sealed, last: int, advanced: Advanced | None = None
) -> dict[str, SealedHead]:
    """Takes the segments after the head up to `last`; gives the heads that moved."""
    moved: dict[str, SealedHead] = {}
    for segment in range(sealed.head.segment + 1, last + 1):
        try:
            manifest, head = await reader.manifest(segment, None if segment - 1 in sealed.unread else sealed.head)
        except ArchiveDamaged as error:
            if segment == last:
                raise
            _leave_out(sealed, segment, error)
            continue
        try:
            messages = await reader.messages(manifest)
        except ArchiveDamaged as error:
            _leave_out(sealed, segment, error)
            sealed.take(manifest, head, range(manifest.first_seq, manifest.last_seq + 1), ())
        else:
            links = await asyncio.to_thread(links_of, messages)
            moved |= sealed.take(manifest, head, [message.seq for message in messages], links)[0]
        if advanced is not None:
            advanced(segment, last)
    return moved


async def _take_again(reader: ArchiveReader, sealed: Sealed, segment: int) -> None:
    try:
        manifest, _ = await reader.manifest(segment)
        sealed.chains.add(await asyncio.to_thread(links_of, await reader.messages(manifest)))
        sealed.unread.discard(segment)
    except ArchiveDamaged:
        return


def _leave_out(sealed: Sealed, segment: int, error: ArchiveDamaged) -> None:
    sealed.unread.add(segment)
    log.error("segment %d is left out: %s", segment, error, extra={"action": "segment_unread"})
