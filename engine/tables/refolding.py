"""Folds the stream into a set of tables that nobody reads yet, up to where the live ones are."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from asyncpg import Record

from relight.engine.clock import Clock
from relight.engine.log.reader import Anchor, Message, Reader
from relight.engine.tables.connecting import Session
from relight.engine.tables.folding import DeadLetter, Folded
from relight.engine.tables.joining import Joiner, Target
from relight.engine.tables.marks import Marks
from relight.engine.tables.workers import Workers

BATCH_EVENTS = 10_000
FOLDED_AT_ONCE = 500
Advanced = Callable[[int, int], None]
"""Is told the sequence that is folded, and the one to come to."""


class Refolding:
    """The target's tables are folded up to `position`, which never passes the live tables'.

    `letters` are the messages that could not be folded.
    """

    def __init__(self, session: Session, reader: Reader, target: Target, marks: Marks | None = None) -> None:
        self.session = session
        self.target = target
        self.tables = sorted((table for p in target.projections for table in p.tables), key=lambda table: table.name)
        self.position = reader.position
        self.letters: list[DeadLetter] = []
        self.events = 0
        self._reader = reader
        self._joiner = Joiner(session, target, marks)

    async def through(self, end: int, advanced: Advanced | None = None) -> None:
        """Everything up to sequence `end`, batch by batch. Raises `Rewound`, `TimeoutError`."""
        writing: asyncio.Task[list[DeadLetter]] | None = None
        try:
            async for messages in self._messages(end):
                folded = await self._folded(messages)
                if writing is not None:
                    await asyncio.wait([writing])  # awaiting the task itself would hand on a cancellation to it
                    written, writing = writing, None
                    self.letters += written.result()
                writing = asyncio.create_task(self._joiner.write(messages, folded))
                self._is_at(messages[-1])
                if advanced is not None:
                    advanced(self.position.seq, end)
        finally:
            if writing is not None:
                await asyncio.wait([writing])
        if writing is not None:
            self.letters += writing.result()

    async def through_workers(self, end: int, workers: Workers, advanced: Advanced | None = None) -> None:
        """The same by other processes, which write in any order: it is all there when this returns."""
        async for messages in self._messages(end):
            await workers.take(messages)
            self._is_at(messages[-1])
            if advanced is not None:
                advanced(self.position.seq, end)
        await workers.finished()
        self.letters += workers.letters

    async def through_at_hand(self, end: int) -> None:
        """The same within the transaction at hand; `go_back` follows where that is rolled back."""
        async for messages in self._messages(end):
            folded = await self._folded(messages)
            await self._joiner.write_at_hand(folded)
            self.letters += folded.dead_letters
            self._is_at(messages[-1])

    def go_back(self, position: Anchor, letters: int) -> None:
        """As if nothing had been read beyond `position`, where there were so many letters."""
        self.position = position
        del self.letters[letters:]
        self._joiner.forget()
        self._reader.move_to(position)

    async def holds(self, anchor: Anchor) -> bool:
        """Whether the stream still holds what the live tables were folded from."""
        return await self._reader.holds(anchor)

    async def settle(self, letters: Sequence[Record], clock: Clock) -> None:
        """Within the transaction at hand, folds what a retry folded into the live tables: judged by the time now."""
        folded = self._joiner.empty()
        folded.fold([Message(row["seq"], clock.now_us() * 1_000, row["subject"], row["body"]) for row in letters])
        await self._joiner.write_at_hand(folded)

    def take_all(self) -> None:
        """From here on nothing is left out: late events below a mark reach the live tables too."""
        self._joiner.marks = None

    async def _messages(self, end: int) -> AsyncIterator[Sequence[Message]]:
        async for messages in self._reader.through(end, limit=BATCH_EVENTS):
            if messages:
                self.events += len(messages)
                yield messages
        if self._reader.position.seq > end:  # where sequences are missing, it read too far
            self._reader.move_to(self.position)

    def _is_at(self, last: Message) -> None:
        self.position = Anchor(last.seq, last.sha256)

    async def _folded(self, messages: Sequence[Message]) -> Folded:
        """In small steps, so that the batch before is written and the next one read meanwhile."""
        folded = self._joiner.empty()
        for first in range(0, len(messages), FOLDED_AT_ONCE):
            folded.fold(messages[first : first + FOLDED_AT_ONCE])
            await asyncio.sleep(0)
        return folded
