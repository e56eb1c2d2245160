"""Where an archive goes on after the stream was put back: the latest sealed place that still stands there."""

import asyncio

from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.segment import Head
from relight.engine.errors import ArchiveDamaged
from relight.engine.log.reader import BEGINNING, TRANSIENT, UNREAD, Anchor, Reader

RETRY_S = 0.5


async def standing_anchor(reader: Reader, archive: ArchiveReader, head: Head, *, sealed_seq: int) -> Anchor:
    """The last message of the latest segment whose one still stands; the stream's beginning where none does.

    `sealed_seq`: the highest sequence ever sealed. What was trimmed up to there is not read again: only rulings are
    left of it, and a segment of these would seem to replace all that was sealed beside them.
    """
    anchor = await _standing(reader, archive, head)
    trimmed_through = min((await _asked_first(reader) or 1) - 1, sealed_seq)
    return Anchor(trimmed_through, UNREAD) if trimmed_through > anchor.seq else anchor


async def _standing(reader: Reader, archive: ArchiveReader, head: Head) -> Anchor:
    replaced_from = head.last_seq + 1
    for segment in range(head.segment, 0, -1):
        try:
            manifest, _ = await archive.manifest(segment)
        except ArchiveDamaged:
            continue
        # Of an earlier incarnation, what lies beyond the first sequence of a later one stands no more.
        if manifest.last_seq < replaced_from:
            anchor = Anchor(manifest.last_seq, manifest.last_sha256)
            while True:
                try:
                    if await reader.holds(anchor):
                        return anchor
                    break
                except TRANSIENT:
                    await asyncio.sleep(RETRY_S)
        replaced_from = min(replaced_from, manifest.first_seq)
    return BEGINNING


async def _asked_first(reader: Reader) -> int | None:
    while True:
        try:
            return await reader.first_observation()
        except TRANSIENT:
            await asyncio.sleep(RETRY_S)
