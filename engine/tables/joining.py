"""Joins folded batches into a set of tables that nobody reads yet, and puts aside what cannot be folded."""

from collections.abc import Sequence
from dataclasses import dataclass

from relight.engine.log.reader import Message
from relight.engine.tables.connecting import Session
from relight.engine.tables.folding import DeadLetter, Folded
from relight.engine.tables.marks import Marks
from relight.engine.tables.partitions import Partitions
from relight.engine.tables.shadow import OWNER, PROJECTOR_ROLE, Sets, acting, become
from relight.engine.tables.store import REFUSED, declared, join_table, join_tables
from relight.events.errors import Reason, Undecodable
from relight.projections.base import Projection


@dataclass(frozen=True, kw_only=True)
class Target:
    """The tables of these projections in `schema`."""

    sets: Sets
    schema: str
    projections: frozenset[Projection]


class Joiner:
    """Writes to the target by one session; of several none has to know of the others, for joins come in any order.

    Rows below `marks` are left out.
    """

    def __init__(self, session: Session, target: Target, marks: Marks | None = None) -> None:
        self.marks = marks
        self._session = session
        self._target = target
        self._partitions = Partitions(self._make_partitions)

    def empty(self) -> Folded:
        """To fold messages into: the target's projections alone."""
        return Folded(self._target.projections)

    async def write(self, messages: Sequence[Message], folded: Folded) -> list[DeadLetter]:
        """Writes what these messages mean, and gives those that cannot be folded; bisects where the store refuses.

        A transaction a table: nobody reads these tables, joins may be repeated, and so no joiner waits long for a row
        that all of them write.
        """
        self._leave_out(folded)
        await self._partitions.ensure(self._session, folded.tables)
        try:
            for table in declared(folded.tables):
                async with acting(self._session, PROJECTOR_ROLE, self._target.schema):
                    await join_table(self._session, table, folded.tables)
            return folded.dead_letters
        except REFUSED as error:
            if len(messages) == 1:
                refused = self.empty()
                refused.fold(messages, refused=Undecodable(Reason.STORE_REFUSED, f"{type(error).__name__}: {error}"))
                return refused.dead_letters
            letters = []
            for half in (messages[: len(messages) // 2], messages[len(messages) // 2 :]):
                again = self.empty()
                again.fold(half)
                letters += await self.write(half, again)
            return letters

    async def write_at_hand(self, folded: Folded) -> None:
        """The same within the transaction at hand, whose role changes by it; where that is rolled back, `forget`."""
        self._leave_out(folded)
        await self._partitions.ensure(self._session, folded.tables)
        await become(self._session, PROJECTOR_ROLE, self._target.schema)
        await join_tables(self._session, folded.tables)

    def forget(self) -> None:
        """Partitions made in a transaction that was rolled back are not there."""
        self._partitions.forget()

    def _leave_out(self, folded: Folded) -> None:
        if self.marks is not None:
            self.marks.drop_trimmed(folded.tables)

    async def _make_partitions(self, session: Session, history: str, event_ids: Sequence[str]) -> None:
        async with acting(session, OWNER, self._target.sets.live):
            await session.execute(
                "SELECT relight_add_partitions($1::text::regclass, $2)", f"{self._target.schema}.{history}", event_ids
            )
