"""The pool of connections for requests: safe behind a PgBouncer in transaction mode, bounded, and measured."""

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import asyncpg
import orjson

from relight.engine.errors import PoolExhausted
from relight.engine.tables.connecting import CONNECT_S, Connection, Session, connect_to

if TYPE_CHECKING:
    AsyncpgPool = asyncpg.Pool[asyncpg.Record]
else:
    AsyncpgPool = asyncpg.Pool

Role = Literal["relight_reader", "relight_operator", "relight_projector", "relight_gate"]

MEASURED_ACQUIRES = 1_000
"""The latest of them make the percentile."""


@dataclass(frozen=True, kw_only=True)
class PoolOptions:
    """How many connections at most, and how long anything may take, in seconds."""

    size: int = 10
    acquire_timeout_s: float = 5
    statement_timeout_s: float = 30
    drain_s: float = 10
    connect_s: float = CONNECT_S
    name: str = "relight"


@dataclass(frozen=True, kw_only=True)
class PoolStatistics:
    """A pool's connections now, and how its users fared: times in milliseconds over the last 1,000 acquisitions."""

    size: int
    in_use: int
    idle: int
    waiting: int
    acquired: int
    exhausted: int
    acquire_p50_ms: float | None
    acquire_p99_ms: float | None


class Pool:
    """Connections that requests take turns with; `open_pool` makes it, and leaving its `with` drains it.

    No prepared statement and no setting outlives its transaction. jsonb is read as the parsed value, uuid as text.
    """

    def __init__(self, pool: AsyncpgPool, options: PoolOptions) -> None:
        self._pool = pool
        self._options = options
        self._waiting = 0
        self._acquired = 0
        self._exhausted = 0
        self._waits_ms: deque[float] = deque(maxlen=MEASURED_ACQUIRES)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """A connection; whoever takes one works inside `connection.transaction()` and sets nothing outside it.

        Raises `PoolExhausted` when none is free within the acquire timeout, `Unreachable` when it must connect anew.
        """
        began = time.monotonic()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._options.acquire_timeout_s):
                connection = await self._pool.acquire()
        except TimeoutError:
            self._exhausted += 1
            raise PoolExhausted(
                f"none of {self._options.size} connections to PostgreSQL came free within"
                f" {self._options.acquire_timeout_s:g} s: ask again later, or raise RELIGHT_POOL_SIZE"
            ) from None
        finally:
            self._waiting -= 1
            self._waits_ms.append((time.monotonic() - began) * 1_000)
        self._acquired += 1
        try:
            yield connection
        finally:
            await self._pool.release(connection)

    @asynccontextmanager
    async def transaction(
        self, role: Role, *, tenant: str | None = None, readonly: bool = True
    ) -> AsyncIterator[Connection]:
        """A transaction that acts as `role`, for `tenant` where one is given; nothing of it outlives it."""
        async with self.acquire() as connection, connection.transaction(readonly=readonly):
            await act_as(connection, role, tenant)
            yield connection

    def statistics(self) -> PoolStatistics:
        size, idle = self._pool.get_size(), self._pool.get_idle_size()
        waits = sorted(self._waits_ms)
        return PoolStatistics(
            size=self._options.size,
            in_use=size - idle,
            idle=idle,
            waiting=self._waiting,
            acquired=self._acquired,
            exhausted=self._exhausted,
            acquire_p50_ms=waits[len(waits) // 2] if waits else None,
            acquire_p99_ms=waits[len(waits) * 99 // 100] if waits else None,
        )

    async def close(self) -> None:
        """Waits for the requests at hand until the drain deadline, then cuts them off. Idempotent."""
        try:
            async with asyncio.timeout(self._options.drain_s):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def open_pool(url: str, options: PoolOptions | None = None) -> Pool:
    """A pool with its first connection made. Raises `Unreachable`, here and from every acquire that connects again."""
    chosen = options or PoolOptions()

    async def connect(*args: Any, **options: Any) -> Session:
        return await connect_to(url, chosen.connect_s, **options)

    pool: AsyncpgPool = await asyncpg.create_pool(
        url,
        min_size=1,
        max_size=chosen.size,
        connect=connect,
        init=_decode_values,
        reset=_nothing_to_reset,
        command_timeout=chosen.statement_timeout_s,
        statement_cache_size=0,
        server_settings={"application_name": chosen.name},
    )
    return Pool(pool, chosen)


async def act_as(connection: Connection, role: Role, tenant: str | None) -> None:
    """Become `role` for `tenant` until the end of this transaction; one statement, so PgBouncer does not matter."""
    await connection.execute(
        "SELECT set_config('role', $1, true), set_config('relight.tenant', $2, true)", role, tenant or ""
    )


async def _decode_values(connection: Connection) -> None:
    """Client-side only: for pg_catalog's types asyncpg asks the server nothing."""
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=orjson.loads)
    await connection.set_type_codec("uuid", schema="pg_catalog", encoder=str, decoder=str)


async def _nothing_to_reset(connection: Connection) -> None:
    """asyncpg's RESET ALL on release would cost a round trip, for what transactions undo themselves."""
