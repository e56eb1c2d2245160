"""Of several archivers on one archive, whose turn it is: the one at work, or one that follows what it seals."""

import logging
import time
from collections.abc import Awaitable, Callable

from relight.engine.archive.following import follow
from relight.engine.archive.models import manifest_name
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.sealed import Sealed
from relight.engine.errors import ArchiveDamaged
from relight.engine.tables.sealed import SealedTables

LOOK_EVERY_S = 1.0
TAKES_OVER_S = 10.0
"""So much longer than a segment may take has nothing been sealed, with more on the stream: its archiver is gone."""
ASK_S = 5.0
"""How long the first answer of PostgreSQL is waited for, which says whether another archiver is at work."""

Pause = Callable[[float], Awaitable[bool]]
"""Waits so many seconds; True where the archiver is stopped."""

log = logging.getLogger(__name__)


class Standby:
    """With `tables`, a lock in PostgreSQL says who is at work, for as long as it answers. Without, nobody stands by who
    was not `contended`: refused, since another sealed first."""

    def __init__(self, tables: SealedTables | None, *, seal_s: float) -> None:
        self._tables = tables
        self._patience_s = seal_s + TAKES_OVER_S
        self.contended = False

    async def turn(
        self,
        archive: ArchiveReader,
        sealed: Sealed,
        *,
        last_seq: Callable[[], Awaitable[int]],
        pause: Pause,
        stands_by: Callable[[], None],
        end: int | None,
    ) -> bool:
        """Waits for one's turn; False where the archiver was stopped, or all up to `end` was sealed by another."""
        if self._tables is not None:
            await self._tables.asked(archive.root.archive, within_s=ASK_S)
        quiet_since = time.monotonic()
        while (leads := None if self._tables is None else self._tables.leads) is False or (
            leads is None and self.contended
        ):
            stands_by()
            if await follow_others(archive, sealed) or await last_seq() <= sealed.head.last_seq:
                quiet_since = time.monotonic()
            if end is not None and sealed.head.last_seq >= end:
                return False
            if time.monotonic() - quiet_since > self._patience_s:
                log.warning("nobody seals: going on in their place", extra={"action": "took_over"})
                break
            if await pause(LOOK_EVERY_S):
                return False
        self.contended = False
        await follow_others(archive, sealed)
        return True

    async def agree(self, archive: ArchiveReader, sealed: Sealed) -> None:
        """Raises `ArchiveDamaged` where PostgreSQL knows of a segment that the archive does not hold."""
        known = None if self._tables is None else self._tables.to_agree
        if self._tables is None or known is None:
            return
        if known.segment > sealed.head.segment:
            await follow_others(archive, sealed)
        if known.segment <= sealed.head.segment:
            try:
                _, head = await archive.manifest(known.segment)
            except ArchiveDamaged:
                self._tables.agreed()  # that it is damaged an audit says
                return
            if head.manifest_sha256 == known.manifest_sha256:
                self._tables.agreed()
                return
        raise ArchiveDamaged(
            f"archive {archive.store.place} is not what PostgreSQL knows of it: it ends with segment"
            f" {sealed.head.segment}, but segment {known.segment} ({known.manifest_sha256[:12]}) was sealed there."
            " Bring back what is missing from a copy; to go on without, delete its row from the table archives"
        )


async def follow_others(archive: ArchiveReader, sealed: Sealed) -> bool:
    """Takes what another archiver has sealed; whether there was anything."""
    began = sealed.head.segment
    while await archive.store.names(manifest_name(sealed.head.segment + 1)):
        await follow(archive, sealed, sealed.head.segment + 1)
    return sealed.head.segment > began
