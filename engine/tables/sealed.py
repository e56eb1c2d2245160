"""Keeps the tables `archives` and `sealed_heads` as the archive is; remembers what to write while they are away."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

import asyncpg

from relight.engine.archive.chains import SealedHead
from relight.engine.archive.segment import Head
from relight.engine.errors import Unreachable
from relight.engine.tables.connecting import Session

LOCK_CLASS = 0x7265_6C61
"""Upper half of the lock's key; the lower one is the archive's identity."""
ROWS = 10_000
LOOK_EVERY_S = 1.0
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 15.0
ANSWER_S = 30.0
AWAY = (OSError, TimeoutError, Unreachable, asyncpg.PostgresError, asyncpg.InterfaceError)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """An archive's last segment, as the table says or is to say."""

    head: Head
    place: str
    key: str
    sealed_at: datetime


@dataclass(frozen=True, slots=True)
class Known:
    """What the table knew of the archive when we connected."""

    segment: int
    manifest_sha256: str


class SealedTables:
    """Of one archive. `connect` opens a session that acts as the projector.

    `leads`: the session holds the archive's lock (True), another does (False), or PostgreSQL does not say (None).
    Nothing is written before `agreed` is called: the archive was found to hold what the table knew of it.
    """

    def __init__(self, connect: Callable[[], Awaitable[Session]]) -> None:
        self._connect = connect
        self._archive: str | None = None
        self._standing: Standing | None = None
        self._heads: dict[str, SealedHead] = {}
        self._changed = asyncio.Event()
        self._asked = asyncio.Event()
        self._written = asyncio.Event()
        self._written.set()
        self._agreed = False
        self._known: Known | None = None
        self.leads: bool | None = None
        self.failure: str | None = None
        self.failing_since: float | None = None

    @property
    def to_agree(self) -> Known | None:
        """What the archive has to be compared with before anything is written."""
        return None if self._agreed else self._known

    def note(self, standing: Standing, moved: Mapping[str, SealedHead]) -> None:
        """Is written as soon as that is possible."""
        self._standing = standing
        self._heads.update(moved)
        self._written.clear()
        self._changed.set()

    def agreed(self) -> None:
        self._agreed = True
        self._changed.set()

    async def asked(self, archive: str, *, within_s: float) -> None:
        """Waits until PostgreSQL has answered once, or has not."""
        self._archive = archive
        self._changed.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._asked.wait()

    async def written(self, *, within_s: float) -> bool:
        """Whether all that was noted is in the tables by then; while PostgreSQL is away, that is not waited for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s if self.failure is None else 0):
                await self._written.wait()
        return self._written.is_set()

    async def run(self) -> None:
        """Until cancelled."""
        retry_s = FIRST_RETRY_S
        while True:
            try:
                session = await self._connect()
                try:
                    while True:
                        await self._look(session)
                        retry_s, self.failure, self.failing_since = FIRST_RETRY_S, None, None
                finally:
                    self.leads, self._agreed = None, False
                    await _closed(session)
            except AWAY as error:
                if self.failure is None:
                    self.failing_since = time.monotonic()
                    log.warning("sealed heads wait for PostgreSQL: %r", error, extra={"action": "sealed_heads_wait"})
                self.failure = str(error) or type(error).__name__
                self._asked.set()
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, LAST_RETRY_S)

    async def _look(self, session: Session) -> None:
        if self._archive is not None:
            async with asyncio.timeout(ANSWER_S):
                if not self._agreed:
                    self._known = await self._load(session, self._archive)
                # Asked again by whoever holds it: so a session that ended is noticed.
                if not self.leads:
                    self.leads = await session.fetchval(
                        "SELECT pg_try_advisory_lock($1)", LOCK_CLASS << 32 | int(self._archive[:8], 16)
                    )
                else:
                    await session.fetchval("SELECT 1")
                self._asked.set()
                if self._agreed or self._known is None:
                    await self._write(session)
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_EVERY_S):
                await self._changed.wait()

    async def _load(self, session: Session, archive: str) -> Known | None:
        row = await session.fetchrow("SELECT segment, manifest_sha256 FROM archives WHERE archive = $1", archive)
        return None if row is None else Known(row["segment"], row["manifest_sha256"])

    async def _write(self, session: Session) -> None:
        standing = self._standing
        while standing is not None:
            part = dict(islice(self._heads.items(), ROWS))
            async with session.transaction():
                # Another archiver may have written more meanwhile: then ours are old.
                if await self._stands(session, standing):
                    await session.execute(
                        HEADS,
                        standing.head.archive,
                        list(part),
                        [head.pseq for head in part.values()],
                        [head.sha256 for head in part.values()],
                    )
            for publisher, head in part.items():
                if self._heads.get(publisher) == head:
                    del self._heads[publisher]
            if not self._heads:
                if self._standing is standing:
                    self._standing = None
                    self._written.set()
                standing = self._standing

    async def _stands(self, session: Session, standing: Standing) -> bool:
        head = standing.head
        row = await session.fetchrow(
            ARCHIVE,
            head.archive,
            standing.place,
            head.segment,
            head.manifest_sha256,
            head.incarnation,
            head.last_seq,
            head.last_sha256,
            standing.key,
            standing.sealed_at,
        )
        return row is not None


async def _closed(session: Session) -> None:
    try:
        await session.close(timeout=2)
    except AWAY:
        session.terminate()


ARCHIVE = """
INSERT INTO archives AS held (
    archive, place, segment, manifest_sha256, incarnation, last_seq, last_sha256, key_id, sealed_at
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (archive) DO UPDATE SET
    place = excluded.place, segment = excluded.segment, manifest_sha256 = excluded.manifest_sha256,
    incarnation = excluded.incarnation, last_seq = excluded.last_seq, last_sha256 = excluded.last_sha256,
    key_id = excluded.key_id, sealed_at = excluded.sealed_at
WHERE excluded.segment >= held.segment
RETURNING segment
"""
HEADS = """
INSERT INTO sealed_heads (archive, publisher, pseq, sha256)
SELECT $1, new.publisher, new.pseq, new.sha256
FROM unnest($2::text[], $3::bigint[], $4::text[]) AS new (publisher, pseq, sha256)
LEFT JOIN sealed_heads AS held ON held.archive = $1 AND held.publisher = new.publisher
WHERE (held.pseq, held.sha256) IS DISTINCT FROM (new.pseq, new.sha256)
ON CONFLICT (publisher, archive) DO UPDATE SET pseq = excluded.pseq, sha256 = excluded.sha256
"""
