"""How relight is: healthy, degraded or unhealthy, and every reason for it."""

import asyncio
import time
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import asyncpg
from nats.aio.client import Client
from pydantic import BaseModel

from relight.engine.errors import SpoolUnusable, Unreachable
from relight.engine.log.reader import TRANSIENT
from relight.engine.log.spool import Spool
from relight.engine.log.topology import STREAM
from relight.engine.tables.pools import Pool
from relight.engine.tables.projector import Projector, ProjectorState

CHECK_TIMEOUT_S = 1.0
STANDS_STILL_S = 10.0
EXPOSED_TOO_LONG_S = 30.0


class Status(StrEnum):
    """Worse ones come later."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"

    @property
    def http_status(self) -> int:
        return 503 if self is Status.UNHEALTHY else 200


class ExposedSpool(BaseModel):
    """What is recorded on this machine and not yet acknowledged by the stream."""

    spools: int = 0
    events: int = 0
    bytes: int = 0
    oldest_s: float | None = None
    unreadable: tuple[str, ...] = ()


class Health(BaseModel):
    """`reasons` is empty when healthy; null is what could not be asked."""

    status: Status
    reasons: list[str]
    position: str | None
    seq: int | None
    last_seq: int | None
    lag_events: int | None
    moved_at: datetime | None
    gaps: int | None
    missing_events: int | None
    refused_events: int | None
    forks: int | None
    dead_letters: int | None
    exposed: ExposedSpool
    projector: str | None


class HealthProbe:
    """Asks NATS, PostgreSQL, the projector (where one runs here) and the spools of this machine."""

    def __init__(self, client: Client, pool: Pool, projector: Projector | None, *, spools: Path) -> None:
        self._client = client
        self._pool = pool
        self._projector = projector
        self._spools = spools

    async def check(self) -> Health:
        unhealthy: list[str] = []
        degraded: list[str] = []
        last_seq, counts, exposed = await asyncio.gather(
            self._last_seq(unhealthy), self._counts(unhealthy), asyncio.to_thread(exposed_spools, self._spools)
        )
        projector = self._projector
        if projector is not None and projector.state is ProjectorState.FAILED:
            unhealthy.append(f"projector: {projector.failure}")
        seq = counts.get("seq")
        lag = None if last_seq is None or seq is None else max(0, last_seq - int(seq))
        if lag and projector is not None and time.monotonic() - projector.moved_at > STANDS_STILL_S:
            degraded.append(f"projector stands still {lag} events behind the stream")
        for name, meaning in (
            ("missing_events", "events are missing from the stream (see publisher_gaps)"),
            ("refused_events", "events were refused by full recorders"),
            ("forks", "events do not follow their publisher's chain"),
            ("dead_letters", "dead letters (see `relight deadletter list`)"),
        ):
            if counts.get(name):
                degraded.append(f"{counts[name]} {meaning}")
        if exposed.oldest_s is not None and exposed.oldest_s > EXPOSED_TOO_LONG_S:
            degraded.append(
                f"{exposed.events} events wait in spools of this machine, the oldest {exposed.oldest_s:.0f} s"
            )
        degraded += exposed.unreadable
        return Health(
            status=Status.UNHEALTHY if unhealthy else Status.DEGRADED if degraded else Status.HEALTHY,
            reasons=[*unhealthy, *degraded],
            position=counts.get("position"),
            seq=seq,
            last_seq=last_seq,
            lag_events=lag,
            moved_at=counts.get("moved_at"),
            gaps=counts.get("gaps"),
            missing_events=counts.get("missing_events"),
            refused_events=counts.get("refused_events"),
            forks=counts.get("forks"),
            dead_letters=counts.get("dead_letters"),
            exposed=exposed,
            projector=projector.state.value if projector else None,
        )

    async def _last_seq(self, unhealthy: list[str]) -> int | None:
        try:
            return (await self._client.jetstream(timeout=CHECK_TIMEOUT_S).stream_info(STREAM)).state.last_seq
        except TRANSIENT as error:
            unhealthy.append(f"NATS: stream {STREAM} does not answer ({str(error) or type(error).__name__})")
            return None

    async def _counts(self, unhealthy: list[str]) -> asyncpg.Record | dict[str, None]:
        # A server that hangs also keeps the transaction's end waiting: that is left to go on by itself.
        asking = asyncio.create_task(self._asked())
        try:
            done, _ = await asyncio.wait([asking], timeout=CHECK_TIMEOUT_S)
            if not done:
                asking.cancel()
                raise TimeoutError(f"not within {CHECK_TIMEOUT_S:g} s")
            return asking.result()
        except (OSError, TimeoutError, Unreachable, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            unhealthy.append(f"PostgreSQL does not answer ({str(error) or type(error).__name__})")
            return {}

    async def _asked(self) -> asyncpg.Record | dict[str, None]:
        async with self._pool.transaction("relight_projector") as connection:
            row = await connection.fetchrow(_COUNTS)
        return row if row is not None else {}


_COUNTS = """
SELECT
    p.incarnation || ':' || p.seq || ':' || left(p.sha256, 12) AS position, p.seq, p.moved_at,
    (SELECT count(*) FROM publisher_gaps) AS gaps,
    (SELECT coalesce(sum(last_pseq - first_pseq + 1), 0)::bigint FROM publisher_gaps) AS missing_events,
    (SELECT coalesce(sum(refused_events), 0)::bigint FROM publisher_heads) AS refused_events,
    (SELECT coalesce(sum(broken_links), 0)::bigint FROM publisher_heads) AS forks,
    (SELECT count(*) FROM dead_letters WHERE resolved_at IS NULL) AS dead_letters
FROM (SELECT) AS one LEFT JOIN projection_positions AS p ON true
"""


def exposed_spools(folder: Path) -> ExposedSpool:
    """Adds up the spools in `folder`, those of live processes included; reads only."""
    found = ExposedSpool()
    events, size, oldest_ms, unreadable = 0, 0, None, []
    paths = sorted(folder.glob("*.db")) if folder.is_dir() else []
    for path in paths:
        try:
            spool = Spool(path, read_only=True)
            try:
                exposure = spool.exposure()
            finally:
                spool.close()
        except SpoolUnusable as error:
            unreadable.append(str(error))
            continue
        events, size = events + exposure.events, size + exposure.bytes
        if exposure.oldest_ms is not None:
            oldest_ms = min(exposure.oldest_ms, oldest_ms or exposure.oldest_ms)
    return found.model_copy(
        update={
            "spools": len(paths),
            "events": events,
            "bytes": size,
            "oldest_s": None if oldest_ms is None else max(0.0, time.time() - oldest_ms / 1_000),
            "unreadable": tuple(unreadable),
        }
    )
