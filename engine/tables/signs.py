"""Signs of life: that a publisher's process was heard of, so that one that says nothing is known to be quiet only."""

import time

from relight.engine.tables.connecting import Connection
from relight.engine.tables.positions import PROJECTOR

SOON_S = 10.0
EVERY_S = 60.0
MAX_HEARD = 200_000


class SignsOfLife:
    """Every recorder asks now and then how far it is projected; the projector at work hears it, and notes it here."""

    def __init__(self) -> None:
        self._heard: set[str] = set()
        self._due_at = 0.0

    def heard(self, publisher: str) -> None:
        if len(self._heard) < MAX_HEARD:
            self._heard.add(publisher)

    async def begin(self, session: Connection) -> None:
        """From now on somebody listens."""
        self._due_at = time.monotonic() + SOON_S
        await session.execute("UPDATE projection_positions SET listens_since = now() WHERE projector = $1", PROJECTOR)

    async def write(self, session: Connection) -> None:
        """Once a minute, what was heard since; a publisher that said that it ended is left alone."""
        if time.monotonic() < self._due_at:
            return
        self._due_at = time.monotonic() + EVERY_S
        heard, self._heard = self._heard, set()
        if heard:
            await session.execute(
                "UPDATE publisher_heads SET heard_at = now() WHERE publisher = ANY($1) AND session = 'open'",
                list(heard),
            )
