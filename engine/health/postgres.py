"""PostgreSQL, over a connection that only health uses: a pool with none free does not read as a server that is away."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final

import asyncpg

from relight.engine.clock import Clock
from relight.engine.errors import Unreachable
from relight.engine.health.breakers import FleetBreakers, look_at_breakers
from relight.engine.health.chains import Chains, look_at_chains
from relight.engine.health.limits import CLOCK_OFFSET_MS, LOOK_S
from relight.engine.health.models import Check, Kind
from relight.engine.tables.connecting import GONE, Session
from relight.engine.tables.migrate import State, status
from relight.engine.tables.pools import act_as

AWAY = (Unreachable, asyncpg.PostgresError, *GONE)
ROLE: Final = "relight_projector"
MIGRATIONS_EVERY_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What is wrong with the events, as the projector has noted it."""

    gaps: int
    missing_events: int
    refused_events: int
    dead_letters: int
    late_events: int = 0
    late_since: datetime | None = None
    lost_events: int = 0
    lost_since: datetime | None = None
    named_losses: Sequence[str] = ()
    healed_events: int = 0


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Where the tables are; `counts` is None where counting took too long."""

    position: str | None
    seq: int | None
    moved_at: datetime | None
    still_s: float | None
    counts: Counts | None
    chains: Chains | None = None
    breakers: FleetBreakers | None = None


@dataclass(frozen=True, kw_only=True)
class DatabaseLook:
    """`failure` says why nothing else is known; `tables` is None before the first migration."""

    failure: str | None = None
    response_ms: float | None = None
    offset_ms: float | None = None
    pending: tuple[str, ...] = ()
    tables: Tables | None = None


class Database:
    """Looks at PostgreSQL, one look at a time; the connection is kept, and made anew after a failure.

    Of tenants' breakers only those of `tenant` are named.
    """

    def __init__(self, connect: Callable[[], Awaitable[Session]], clock: Clock, tenant: str) -> None:
        self._connect = connect
        self._clock = clock
        self._tenant = tenant
        self._session: Session | None = None
        self._pending: tuple[str, ...] = ()
        self._migrations_at = -MIGRATIONS_EVERY_S
        self._partial = DatabaseLook()

    async def look(self) -> DatabaseLook:
        """Within `LOOK_S`, whatever the server does; what was learned until then is kept."""
        self._partial = DatabaseLook()
        asking = asyncio.create_task(self._asked())
        # A server that hangs would also keep the transaction's end waiting: it is not waited for.
        done, _ = await asyncio.wait([asking], timeout=LOOK_S)
        try:
            if not done:
                raise TimeoutError(f"no answer within {LOOK_S:g} s")
            return asking.result()
        except AWAY as error:
            self._drop(asking)
            if self._partial.response_ms is not None:
                return self._partial
            return DatabaseLook(failure=str(error) or type(error).__name__)
        except BaseException:
            self._drop(asking)
            raise

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            try:
                await session.close(timeout=1)
            except AWAY:
                session.terminate()

    def _drop(self, asking: "asyncio.Task[DatabaseLook]") -> None:
        session, self._session = self._session, None
        if session is not None:
            session.terminate()
        asking.cancel()
        asking.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _asked(self) -> DatabaseLook:
        if self._session is None or self._session.is_closed():
            self._session = await self._connect()
        session = self._session
        began, began_us = time.monotonic(), self._clock.now_us()
        there_us = await session.fetchval("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
        took_us = (time.monotonic() - began) * 1_000_000
        await self._look_at_migrations(session)
        self._partial = look = DatabaseLook(
            response_ms=took_us / 1_000,
            offset_ms=(there_us - began_us - took_us / 2) / 1_000,
            pending=self._pending,
        )
        try:
            return await self._tables(session, look)
        except (asyncpg.UndefinedTableError, asyncpg.InvalidParameterValueError):
            return look  # neither tables nor roles yet: `pending` says so

    async def _look_at_migrations(self, session: Session) -> None:
        if self._pending or time.monotonic() - self._migrations_at > MIGRATIONS_EVERY_S:
            # What a newer release added is no fault of this one's: while one follows the other, both serve.
            self._pending = tuple(
                file.name for file in await status(session) if file.state in (State.PENDING, State.EDITED)
            )
            self._migrations_at = time.monotonic()

    async def _tables(self, session: Session, look: DatabaseLook) -> DatabaseLook:
        async with session.transaction(readonly=True):
            await act_as(session, ROLE, None)
            row = await session.fetchrow(_POSITION)
            breakers = await look_at_breakers(session, self._tenant)
            tables = Tables(**dict(row or _NOWHERE), counts=None, breakers=breakers)
            self._partial = replace(look, tables=tables)
            counted = await session.fetchrow(_COUNTS)
            chains = await look_at_chains(session)
        assert counted is not None
        return replace(look, tables=replace(tables, counts=Counts(**dict(counted)), chains=chains))


_NOWHERE = {"position": None, "seq": None, "moved_at": None, "still_s": None}
_POSITION = """
SELECT
    p.incarnation || ':' || p.seq || ':' || left(p.sha256, 12) AS position, p.seq, p.moved_at,
    extract(epoch FROM clock_timestamp() - p.moved_at)::float AS still_s
FROM projection_positions AS p
"""
_COUNTS = """
WITH declared AS (
    SELECT publisher, range_agg(int8range(first_pseq, last_pseq, '[]')) AS runs FROM recorded_losses GROUP BY publisher
), gaps AS (
    SELECT unnest(int8multirange(int8range(first_pseq, last_pseq, '[]')) - coalesce(runs, '{}')) AS run
    FROM publisher_gaps LEFT JOIN declared USING (publisher)
), heals AS (
    SELECT unnest(range_agg(int8range(first_pseq, last_pseq, '[]'))) AS run FROM recorded_heals GROUP BY publisher
), losses AS (
    SELECT
        coalesce(sum(last_pseq - first_pseq + 1) FILTER (WHERE NOT lost), 0)::bigint AS late_events,
        min(noticed_at) FILTER (WHERE NOT lost) AS late_since,
        coalesce(sum(last_pseq - first_pseq + 1) FILTER (WHERE lost), 0)::bigint AS lost_events,
        min(noticed_at) FILTER (WHERE lost) AS lost_since,
        (array_agg(
            publisher || ' ' || first_pseq || CASE WHEN last_pseq > first_pseq THEN '-' || last_pseq ELSE '' END
            ORDER BY lost DESC, noticed_at, publisher, first_pseq
        ))[1:3] AS named_losses
    FROM stream_losses
)
SELECT
    (SELECT count(*) FROM gaps) AS gaps,
    (SELECT coalesce(sum(upper(run) - lower(run)), 0)::bigint FROM gaps) AS missing_events,
    (SELECT coalesce(sum(upper(run) - lower(run)), 0)::bigint FROM heals) AS healed_events,
    losses.*,
    (SELECT coalesce(sum(refused_events), 0)::bigint FROM publisher_heads) AS refused_events,
    (SELECT count(*) FROM dead_letters WHERE resolved_at IS NULL) AS dead_letters
FROM losses
"""


def database_checks(look: DatabaseLook, now: datetime) -> Iterator[Check]:
    """Of the server itself; what its tables say is in `projection`."""
    postgres = partial(Check, component="postgres", kind=Kind.DATASTORE, time=now)
    if look.failure is not None or look.response_ms is None or look.offset_ms is None:
        yield postgres(measurement="responseTime", unit="ms").failed(
            True,
            f"PostgreSQL does not answer ({look.failure}): recording goes on, queries and projection do not; is it up,"
            " and the network between?",
        )
        return
    yield postgres(measurement="responseTime", observed=round(look.response_ms, 3), unit="ms")
    yield postgres(measurement="pendingMigrations", observed=len(look.pending)).failed(
        look.pending, f"{', '.join(look.pending[:3])}: not as this release has it; see `relight migrate --status`"
    )
    yield clock_check("postgres", look.offset_ms, now)


def clock_check(server: str, offset_ms: float, now: datetime) -> Check:
    """How far a server's clock is ahead of this machine's."""
    return Check(
        component="clock",
        measurement="offset",
        kind=Kind.SYSTEM,
        id=server,
        time=now,
        observed=round(offset_ms, 1),
        unit="ms",
    ).warned(
        abs(offset_ms) > CLOCK_OFFSET_MS,
        f"the clock of {server} is {abs(offset_ms) / 1_000:.1f} s {'ahead of' if offset_ms > 0 else 'behind'} this"
        " machine's: run NTP on both; events 60 s ahead of the stream's clock become dead letters",
    )
