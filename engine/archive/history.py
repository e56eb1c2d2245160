"""Reads the whole history: what the stream was trimmed of comes from the archive, in one order and each once."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from nats.aio.client import Client

from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.timeline import Stretch, sealed_messages, stretches
from relight.engine.errors import HistoryGone
from relight.engine.log.reader import Anchor, Message, Reader
from relight.engine.log.trims import trimmed_through

OpenArchive = Callable[[], Awaitable[ArchiveReader]]
"""Opens the archive of the settings; asked only where the stream alone does not do."""


async def history_reader(
    client: Client, position: Anchor, *, open_archive: OpenArchive | None = None, through: int | None = None
) -> Reader:
    """Goes on from `position`; `through`: how far the stream is trimmed, where that is known already.

    Raises `HistoryGone` where what comes next was trimmed and there is no archive, or it does not hold it.
    """
    if through is None:
        through = await trimmed_through(client.jetstream(timeout=5))
    if position.seq >= through:
        return Reader(client, position)
    if open_archive is None:
        raise HistoryGone(
            f"the stream was trimmed up to message {through}, and what comes after {position.seq} is not on it any"
            " more: name the archive that holds it by RELIGHT_ARCHIVE"
        )
    archive = await open_archive()
    found = await stretches(archive)
    if not found or found[-1].through_seq < through:
        raise HistoryGone(
            f"the stream was trimmed up to message {through}, and archive {archive.store.place} holds it up to"
            f" {found[-1].through_seq if found else 0}: name the one that holds the rest by RELIGHT_ARCHIVE"
        )
    return SealedReader(client, position, archive, found, through)


class SealedReader(Reader):
    """As `Reader`; everything up to `through` comes from the archive, also rulings that still stand on the stream."""

    def __init__(
        self, client: Client, position: Anchor, archive: ArchiveReader, found: Sequence[Stretch], through: int
    ) -> None:
        super().__init__(client, position)
        self._archive = archive
        self._found = found
        self._through = through
        self._segments: AsyncIterator[Sequence[Message]] | None = None
        self._at_hand: Sequence[Message] = ()
        self.last_seq = through

    def move_to(self, position: Anchor) -> None:
        super().move_to(position)
        self._segments, self._at_hand = None, ()

    async def batch(self, *, limit: int, linger_s: float, timeout_s: float) -> Sequence[Message]:
        """Raises `ArchiveDamaged`, too."""
        if self.position.seq < self._through:
            if self._segments is None:
                self._segments = sealed_messages(
                    self._archive, self._found, after_seq=self.position.seq, through_seq=self._through
                )
            if not self._at_hand:
                self._at_hand = await anext(self._segments, ())
            taken, self._at_hand = self._at_hand[:limit], self._at_hand[limit:]
            if taken:
                self.position = Anchor(taken[-1].seq, taken[-1].sha256)
                return taken
        return await super().batch(limit=limit, linger_s=linger_s, timeout_s=timeout_s)
