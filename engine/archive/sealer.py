"""Seals what is in hand as the segment after a head; asked again after a failure, it writes the same bytes."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from relight.engine.archive.contents import Kept
from relight.engine.archive.following import links_of
from relight.engine.archive.keys import SigningKey
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.sealing import add_segment
from relight.engine.archive.segment import Head, Segment, seal
from relight.engine.archive.trust import check_may_seal
from relight.engine.clock import Clock
from relight.engine.errors import ArchiveConflict
from relight.engine.log.links import Link
from relight.engine.log.reader import Message

Keep = Callable[[Sequence[Message]], Awaitable[Kept]]
"""Brings into the archive what messages refer to, before they are sealed."""


@dataclass(frozen=True, slots=True)
class Made:
    segment: Segment
    seqs: list[int]
    links: list[Link]
    kept: Kept


class Sealer:
    """Of one segment; `keep` is asked until it has succeeded once."""

    def __init__(
        self,
        archive: ArchiveReader,
        key: Callable[[], SigningKey],
        clock: Clock,
        keep: Keep | None,
        messages: Sequence[Message],
        *,
        after: Head,
        incarnation: int,
    ) -> None:
        self._archive = archive
        self._key = key
        self._clock = clock
        self._keep = keep
        self._messages = messages
        self._after = after
        self._incarnation = incarnation
        self._kept = Kept()
        self._made: Made | None = None

    async def run(self) -> Made:
        """The segment, durable.

        Raises `ArchiveConflict` where another archiver sealed this number, `ArchiveError` where the key may not.
        """
        if self._keep is not None:
            self._kept = await self._keep(self._messages)
            self._keep = None
        if self._made is None:
            key = self._key()
            await check_may_seal(self._archive, key, self._after)
            self._made = await asyncio.to_thread(self._make, key)
        made = self._made.segment
        try:
            await add_segment(self._archive.store, made)
        except ArchiveConflict:
            # Of an earlier attempt perhaps, whose answer was lost.
            if await self._archive.store.read(made.name) != made.manifest_bytes:
                raise
        return self._made

    def _make(self, key: SigningKey) -> Made:
        segment = seal(self._messages, self._after, incarnation=self._incarnation, key=key, sealed_at=self._clock.now())
        return Made(segment, [message.seq for message in self._messages], links_of(self._messages), self._kept)
