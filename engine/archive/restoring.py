"""Brings the stream back from an archive: every message at its own sequence, once, however often it is begun."""

from collections.abc import AsyncIterator, Callable
from enum import StrEnum

from relight.engine.archive.closed_stream import PLACEHOLDER, ClosedStream
from relight.engine.archive.reel import Reel
from relight.engine.archive.seen_contents import SeenContents
from relight.engine.errors import RestoreRefused
from relight.engine.log.reader import Message
from relight.engine.log.topology import STREAM


class Fate(StrEnum):
    """What became of a message of the archive."""

    RESTORED = "restored"
    ALREADY = "already"
    """it stood there: an earlier restore was cut short"""
    COPIED = "copied"
    """put behind all others, for its sequence belongs to a later incarnation"""


Counted = Callable[[Fate, int], None]


async def restore_stream(reel: Reel, stream: ClosedStream, seen: SeenContents, counted: Counted) -> None:
    """Compares what stands there and adds what is missing behind it; the stream stays closed.

    Raises `RestoreRefused` where the stream holds what the archive does not, or lacks something in between.
    """
    await stream.look()
    comparison = _Comparison(stream)

    async def put(messages: list[Message], fate: Fate) -> None:
        seen.see(messages)
        new = [message for message in messages if not await comparison.stands(message)]
        counted(Fate.ALREADY, len(messages) - len(new))
        if new:
            await comparison.ends()
            await stream.write(new, lambda events: counted(fate, events))

    async for messages in reel.messages():
        await put(messages, Fate.RESTORED)
    async for copies in reel.copies():
        await put(copies, Fate.COPIED)
    await comparison.ends()


class _Comparison:
    """Of what stood on the stream before with what the archive says, both in order."""

    def __init__(self, stream: ClosedStream) -> None:
        self._stream = stream
        self._end = stream.last_seq or 0
        self._existing: AsyncIterator[Message] = stream.existing()
        self._next: Message | None = None
        self._begun = False

    async def stands(self, message: Message) -> bool:
        """False: it is to be put behind what stands there."""
        if not self._begun:
            self._begun = True
            await self._advance()
        while self._next is not None and self._next.seq < message.seq:
            await self._pass_placeholder(self._next)
        if self._next is not None and self._next.seq == message.seq:
            if self._next.sha256 != message.sha256:
                raise self._foreign(self._next)
            await self._advance()
            return True
        if message.seq > self._end and not self._stream.is_open:
            return False
        raise RestoreRefused(
            f"stream {STREAM} lacks message {message.seq}, which the archive has, and may not be filled: healing puts"
            " back what a live stream lost; to restore all of it, stop whoever uses the stream and delete it"
        )

    async def ends(self) -> None:
        """There is nothing more on the stream than was compared."""
        if not self._begun:
            self._begun = True
            await self._advance()
        while self._next is not None:
            await self._pass_placeholder(self._next)

    async def _pass_placeholder(self, message: Message) -> None:
        if self._stream.is_open or message.subject != PLACEHOLDER:
            raise self._foreign(message)
        await self._advance()

    async def _advance(self) -> None:
        self._next = await anext(self._existing, None)

    def _foreign(self, message: Message) -> RestoreRefused:
        return RestoreRefused(
            f"stream {STREAM} holds message {message.seq}, which the archive does not have there: nothing is restored"
            " into it. If it is well, there is nothing to restore; if it was begun anew, stop whoever records and"
            " delete it: what was recorded meanwhile is still in the spools"
        )
