"""The swap: in one transaction the last events are folded and other tables take the live ones' place."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from relight.engine.clock import Clock
from relight.engine.errors import RebuildRefused, Rewound
from relight.engine.log.reader import Anchor
from relight.engine.tables.connecting import Session
from relight.engine.tables.deadletters import bury
from relight.engine.tables.positions import PROJECTOR, Position, load_position, next_generation
from relight.engine.tables.refolding import Refolding
from relight.engine.tables.shadow import (
    OWNER,
    become,
    cover_partitions,
    move_tables,
    refuse_dependents,
    refuse_unlike,
)
from relight.engine.tables.store import REFUSED

POSITION_LOCK_MS = 10_000
TABLE_LOCK_MS = (200, 400, 800, 1_600)
GIVE_UP_S = 120.0
CLOSE_EVENTS = 500
"""So few events that folding them while the projector waits takes some milliseconds."""
CLOSE_ENOUGH_TRIES = 20
RESOLVED_MARGIN = timedelta(minutes=10)
"""A dead letter may have been resolved by a transaction that began before a moment and was committed after it."""


class _Refused(Exception):
    """The store refuses something in the last events: outside the swap it is found by bisecting."""


GAVE_WAY = (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError, asyncpg.DeadlockDetectedError, _Refused)


@dataclass(frozen=True, kw_only=True)
class Swapped:
    """The position at which it happened; for how long writes and reads had to wait, in seconds."""

    position: Position
    generation: int
    writes_waited_s: float
    reads_waited_s: float


class Swap:
    """Puts the tables of a `Refolding` in the place of the live ones, and these into the previous set.

    `versions`: with which version of each projection the incoming tables were folded. `resolved_since`: dead letters
    that were resolved for the live tables from then on are folded into the incoming ones too.
    """

    def __init__(
        self,
        refolding: Refolding,
        *,
        incarnation: int,
        versions: Mapping[str, int],
        resolved_since: datetime,
        clock: Clock,
    ) -> None:
        self._refolding = refolding
        self._session: Session = refolding.session
        self._sets = refolding.target.sets
        self._names = [table.name for table in refolding.tables]
        self._incarnation = incarnation
        self._versions = versions
        self._resolved_since = resolved_since - RESOLVED_MARGIN
        self._clock = clock
        self._tables_locked_at = 0.0

    async def run(self) -> Swapped:
        """Raises `Rewound`, and `RebuildRefused` when the tables are never free or were changed meanwhile.

        Whoever waits for ACCESS EXCLUSIVE keeps every later reader waiting, too, for as long as the one that is in
        its way. So it waits briefly, gives way, and waits longer the next time: autovacuum itself gives way, but only
        to who has waited for a second.
        """
        deadline, tries = time.monotonic() + GIVE_UP_S, 0
        while True:
            await self._come_close()
            position, letters = self._refolding.position, len(self._refolding.letters)
            try:
                return await self._once(TABLE_LOCK_MS[min(tries, len(TABLE_LOCK_MS) - 1)])
            except GAVE_WAY as error:
                self._refolding.go_back(position, letters)
                tries += 1
                if isinstance(error, _Refused):
                    await self._refolding.through((await load_position(self._session)).seq)
                if time.monotonic() > deadline:
                    raise RebuildRefused(
                        f"the tables were never free within {GIVE_UP_S:g} s ({error}): {await self._in_the_way()};"
                        " nothing was swapped, run it again when they are"
                    ) from error
                await asyncio.sleep(TABLE_LOCK_MS[0] * min(tries, 5) / 1_000)

    async def _come_close(self) -> None:
        """Folds what came meanwhile, until what is left is little; a stream faster than that is swapped in any case."""
        for _ in range(CLOSE_ENOUGH_TRIES):
            live = await load_position(self._session)
            if live.seq - self._refolding.position.seq <= CLOSE_EVENTS:
                return
            await self._refolding.through(live.seq)

    async def _once(self, lock_ms: int) -> Swapped:
        session, sets, refolding = self._session, self._sets, self._refolding
        async with session.transaction():
            await become(session, OWNER, sets.live)
            await session.execute(
                f"SET LOCAL synchronous_commit = on; SET LOCAL lock_timeout = {POSITION_LOCK_MS};"
                " SET LOCAL statement_timeout = 0"
            )
            # From here on the live projector waits before it has touched any table.
            row = await session.fetchrow(
                "SELECT incarnation, seq, sha256 FROM projection_positions WHERE projector = $1 FOR UPDATE", PROJECTOR
            )
            began = time.monotonic()
            assert row is not None
            live = Position(row["incarnation"], Anchor(row["seq"], row["sha256"]))
            try:
                await refolding.through_at_hand(live.seq)
            except REFUSED as error:
                raise _Refused from error
            if live.incarnation != self._incarnation or refolding.position.seq > live.seq:
                raise Rewound
            await self._settle(live.seq)
            await become(session, OWNER, sets.live)
            await self._lock_tables(lock_ms)
            await refuse_dependents(session, sets, refolding.tables)
            await refuse_unlike(session, sets, refolding.target.schema, refolding.tables)
            await cover_partitions(session, sets, refolding.target.schema, refolding.tables)
            await self._move()
            generation = await self._note(live)
            await bury(session, refolding.letters)
        done = time.monotonic()
        return Swapped(
            position=live,
            generation=generation,
            writes_waited_s=done - began,
            reads_waited_s=done - self._tables_locked_at,
        )

    async def _settle(self, seq: int) -> None:
        await become(self._session, OWNER, self._sets.live)
        letters = await self._session.fetch(RESOLVED, seq, self._resolved_since)
        if letters:
            await self._refolding.settle(letters, self._clock)

    async def _lock_tables(self, lock_ms: int) -> None:
        names = ", ".join(f"{self._sets.live}.{name}" for name in self._names)
        await self._session.execute(f"SET LOCAL lock_timeout = {lock_ms}; SET LOCAL statement_timeout = {2 * lock_ms}")
        self._tables_locked_at = time.monotonic()
        await self._session.execute(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")
        await self._session.execute("SET LOCAL statement_timeout = 0")

    async def _move(self) -> None:
        """Shadow to live and live to previous; of a rollback, previous to live and live to previous."""
        sets, incoming = self._sets, self._refolding.target.schema
        aside = sets.previous if incoming == sets.shadow else sets.shadow
        await move_tables(self._session, self._names, source=sets.live, target=aside)
        await move_tables(self._session, self._names, source=incoming, target=sets.live)
        if aside != sets.previous:
            await move_tables(self._session, self._names, source=aside, target=sets.previous)

    async def _note(self, live: Position) -> int:
        owners = [(table.name, p.name) for p in self._refolding.target.projections for table in p.tables]
        await self._session.execute("DELETE FROM retired_tables")
        await self._session.execute(RETIRE, *map(list, zip(*owners, strict=True)), live.seq, live.anchor.sha256)
        await self._session.execute(NOTE_VERSIONS, list(self._versions), list(self._versions.values()))
        return await next_generation(self._session)

    async def _in_the_way(self) -> str:
        rows = await self._session.fetch(IN_THE_WAY, self._names)
        return ", ".join(f"{row['name'] or 'a session'} (process {row['pid']})" for row in rows) or "nobody now"


RESOLVED = """
SELECT seq, subject, body FROM dead_letters WHERE resolved_at >= $2 AND seq <= $1 ORDER BY seq
"""
RETIRE = """
INSERT INTO retired_tables (table_name, projection, version, seq, sha256, retired_at)
SELECT name, owner, coalesce((SELECT version FROM projection_versions WHERE projection = owner), 1), $3, $4, now()
FROM unnest($1::text[], $2::text[]) AS t (name, owner)
"""
NOTE_VERSIONS = """
INSERT INTO projection_versions (projection, version) SELECT * FROM unnest($1::text[], $2::bigint[])
ON CONFLICT (projection) DO UPDATE SET version = excluded.version
"""
IN_THE_WAY = """
SELECT DISTINCT pid, application_name AS name FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE relation = ANY($1::text[]::regclass[]) AND granted AND pid <> pg_backend_pid()
"""
