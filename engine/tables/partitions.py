"""Monthly partitions of the history tables: made before the rows that need them, known in memory afterwards."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence

from relight.engine.tables.connecting import Session
from relight.projections.tables import Tables

SLOT_DIGITS = 6
"""Hexadecimal digits of an id that name a slot of 4.7 hours: cutting them off is cheaper than finding the month."""
LOWEST, HIGHEST = "00-0000-7000-8000-000000000000", "ff-ffff-7fff-bfff-ffffffffffff"

Make = Callable[[Session, str, Sequence[str]], Awaitable[None]]
"""Makes the partitions of this history table that events of these ids need."""


async def make_live(session: Session, history: str, event_ids: Sequence[str]) -> None:
    """Of the live tables, as the projector; one that is there is left as it is, whoever made it."""
    await session.execute("SELECT relight_ensure_partitions($1, $2)", history, event_ids)


class Partitions:
    """Which slots have their partitions, as far as this process knows: then `ensure` asks nobody.

    A swap changes nothing in that, for the tables swapped in have every month of those that they replace.
    """

    def __init__(self, make: Make = make_live) -> None:
        self._make = make
        self._known: defaultdict[str, set[str]] = defaultdict(set)

    async def ensure(self, session: Session, tables: Tables) -> None:
        """Makes what the history rows in `tables` need; best outside the transaction that writes them."""
        for history, rows in tables.histories.items():
            slots = {event_id[:SLOT_DIGITS] for _, event_id in rows}
            if missing := slots - self._known[history.name]:
                ends = [slot + end for slot in sorted(missing) for end in (LOWEST, HIGHEST)]
                await self._make(session, history.name, ends)
                self._known[history.name] |= missing

    def forget(self) -> None:
        """One may be gone: the next `ensure` asks about all."""
        self._known.clear()
