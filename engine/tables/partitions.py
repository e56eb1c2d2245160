"""Monthly partitions of the history tables: made before the rows that need them, known in memory afterwards."""

from collections import defaultdict

from relight.engine.tables.connecting import Connection
from relight.projections.tables import Tables

SLOT_DIGITS = 6
"""Hexadecimal digits of an id that name a slot: 4.7 hours. Ids are told apart by it, not by month: that is a slice."""
LOWEST, HIGHEST = "00-0000-7000-8000-000000000000", "ff-ffff-7fff-bfff-ffffffffffff"


class Partitions:
    """Which slots have their partitions, as far as this process knows: then `ensure` asks nobody.

    Not thrown away by a swap, for the tables that a rebuild swaps in have every partition of those they replace.
    """

    def __init__(self) -> None:
        self._known: defaultdict[str, set[str]] = defaultdict(set)

    async def ensure(self, connection: Connection, tables: Tables) -> None:
        """Makes what the history rows in `tables` need; outside the transaction that writes them, or others wait."""
        for history, rows in tables.histories.items():
            slots = {event_id[:SLOT_DIGITS] for _, event_id in rows}
            if missing := slots - self._known[history.name]:
                await connection.execute(
                    "SELECT relight_ensure_partitions($1, $2)",
                    history.name,
                    [slot[:6] + end for slot in missing for end in (LOWEST, HIGHEST)],
                )
                self._known[history.name] |= missing

    def forget(self) -> None:
        """Retention may have dropped one: the next `ensure` asks about all."""
        self._known.clear()
