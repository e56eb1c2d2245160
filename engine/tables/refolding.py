"""Folds the stream into a set of tables that nobody reads yet."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence

from asyncpg import Record

from relight.engine.clock import Clock
from relight.engine.log.reader import Anchor, Message, Reader
from relight.engine.tables.connecting import Session
from relight.engine.tables.folding import DeadLetter, Folded
from relight.engine.tables.marks import Marks
from relight.engine.tables.partitions import Partitions
from relight.engine.tables.shadow import OWNER, PROJECTOR_ROLE, Sets, acting, become
from relight.engine.tables.store import REFUSED, join_tables
from relight.events.errors import Reason, Undecodable
from relight.projections.base import Projection

BATCH_EVENTS = 10_000
FOLDED_AT_ONCE = 500
Advanced = Callable[[int, int], None]
"""Is told the sequence that is folded, and the one to come to."""


class Refolding:
    """Tables of some projections in `schema`, folded up to `position`, which stays behind the live tables'.

    Rows below `marks` are left out. `letters` are the messages that could not be folded.
    """

    def __init__(
        self,
        session: Session,
        reader: Reader,
        sets: Sets,
        schema: str,
        projections: Collection[Projection],
        marks: Marks | None = None,
    ) -> None:
        self.session = session
        self.sets = sets
        self.schema = schema
        self.projections = frozenset(projections)
        self.tables = sorted((table for p in projections for table in p.tables), key=lambda table: table.name)
        self.marks = marks
        self.position = reader.position
        self.letters: list[DeadLetter] = []
        self.events = 0
        self._reader = reader
        self._partitions = Partitions(self._make_partitions)

    async def through(self, end: int, advanced: Advanced | None = None) -> None:
        """Everything up to sequence `end`, a batch a transaction. Raises `Rewound`, `TimeoutError`."""
        writing: asyncio.Task[None] | None = None
        try:
            async for messages in self._messages(end):
                folded = await self._folded(messages)
                if writing is not None:
                    await asyncio.wait([writing])  # awaiting the task itself would hand on a cancellation to it
                    written, writing = writing, None
                    written.result()
                await self._partitions.ensure(self.session, folded.tables)
                writing = asyncio.create_task(self._write(messages, folded))
                self._is_at(messages[-1])
                if advanced is not None:
                    advanced(self.position.seq, end)
        finally:
            if writing is not None:
                await asyncio.wait([writing])
        if writing is not None:
            writing.result()

    async def through_at_hand(self, end: int) -> None:
        """The same within the transaction at hand; `go_back` follows where that is rolled back."""
        async for messages in self._messages(end):
            folded = await self._folded(messages)
            await self._join(folded)
            self._is_at(messages[-1])

    def go_back(self, position: Anchor, letters: int) -> None:
        """As if nothing had been read beyond `position`, where there were so many letters."""
        self.position = position
        del self.letters[letters:]
        self._partitions.forget()
        self._reader.move_to(position)

    async def holds(self, anchor: Anchor) -> bool:
        """Whether the stream still holds what the live tables were folded from."""
        return await self._reader.holds(anchor)

    async def settle(self, letters: Sequence[Record], clock: Clock) -> None:
        """Within the transaction at hand, folds what a retry folded into the live tables: judged by the time now."""
        folded = Folded(self.projections)
        folded.fold([Message(row["seq"], clock.now_us() * 1_000, row["subject"], row["body"]) for row in letters])
        folded.dead_letters.clear()
        if self.marks is not None:
            self.marks.drop_trimmed(folded.tables)
        await self._join(folded)

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
        folded = Folded(self.projections)
        for first in range(0, len(messages), FOLDED_AT_ONCE):
            folded.fold(messages[first : first + FOLDED_AT_ONCE])
            await asyncio.sleep(0)
        if self.marks is not None:
            self.marks.drop_trimmed(folded.tables)
        return folded

    async def _write(self, messages: Sequence[Message], folded: Folded) -> None:
        """Bisects a batch where the store refuses a value, down to the one dead letter."""
        try:
            async with acting(self.session, PROJECTOR_ROLE, self.schema):
                await join_tables(self.session, folded.tables)
            self.letters += folded.dead_letters
        except REFUSED as error:
            if len(messages) == 1:
                refused = Folded(self.projections)
                refused.fold(messages, refused=Undecodable(Reason.STORE_REFUSED, f"{type(error).__name__}: {error}"))
                self.letters += refused.dead_letters
                return
            for half in (messages[: len(messages) // 2], messages[len(messages) // 2 :]):
                await self._write(half, await self._folded(half))

    async def _join(self, folded: Folded) -> None:
        await self._partitions.ensure(self.session, folded.tables)
        await become(self.session, PROJECTOR_ROLE, self.schema)
        await join_tables(self.session, folded.tables)
        self.letters += folded.dead_letters

    async def _make_partitions(self, session: Session, history: str, event_ids: Sequence[str]) -> None:
        async with acting(session, OWNER, self.sets.live):
            await session.execute(
                "SELECT relight_add_partitions($1::text::regclass, $2)", f"{self.schema}.{history}", event_ids
            )
