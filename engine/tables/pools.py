"""The pool of connections for requests: safe behind a PgBouncer in transaction mode, bounded, and measured."""

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import asyncpg
import orjson

from relight.engine.errors import PoolExhausted, Unreachable
from relight.engine.tables.connecting import (
    CONNECT_S,
    GONE,
    Connection,
    Session,
    address,
    connect_to,
    milliseconds,
)
from relight.engine.tables.statements import Connection as PooledConnection

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    AsyncpgPool = asyncpg.Pool[asyncpg.Record]
    Lent = PoolConnectionProxy[asyncpg.Record]
else:
    AsyncpgPool = asyncpg.Pool
    Lent = Connection

Role = Literal["relight_reader", "relight_operator", "relight_projector", "relight_gate"]
PROJECTOR_ROLE: Final = "relight_projector"

MEASURED_ACQUIRES = 1_000
"""The latest of them make the percentile."""
ENDING_S = 2.0
"""How long a transaction whose end decides nothing may take to end before its connection is cut."""
CLIENT_GRACE_S = 1.0
"""How much later than the server the client gives a statement up: the server's word says more, and frees it there."""

log = logging.getLogger(__name__)


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
    begun_again: int = 0
    """Transactions whose connection turned out to be dead, begun again on a new one."""
    cut_off: int = 0
    """Connections whose requests were not finished when the drain deadline was over."""


@dataclass(slots=True)
class _Attempt:
    """One acquisition; `connecting`: it waits for the server, not for a turn."""

    connecting: bool = False


_attempt: ContextVar[_Attempt | None] = ContextVar("relight_pool_attempt", default=None)


class Pool:
    """Connections that requests take turns with; `open_pool` makes it, and leaving its `with` drains it.

    No prepared statement and no setting outlives its transaction. jsonb is read as the parsed value, uuid as text.
    """

    def __init__(self, pool: AsyncpgPool, options: PoolOptions, url: str) -> None:
        self._pool = pool
        self._options = options
        self._address = address(url)
        self._waiting = 0
        self._held = 0
        self._acquired = 0
        self._exhausted = 0
        self._begun_again = 0
        self._cut_off = 0
        self._closing = self._cut = False
        self._vacant = asyncio.Event()
        self._ending: set[asyncio.Task[None]] = set()
        self._waits_ms: deque[float] = deque(maxlen=MEASURED_ACQUIRES)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """A connection; whoever takes one works inside `connection.transaction()` and sets nothing outside it.

        Raises `PoolExhausted` when none is free within the acquire timeout, `Unreachable` when it must connect anew and
        cannot, or when the pool is closing.
        """
        connection = await self._acquire(self._deadline())
        try:
            yield connection
        finally:
            await self._release(connection)

    @asynccontextmanager
    async def transaction(
        self, role: Role, *, tenant: str | None = None, readonly: bool = True
    ) -> AsyncIterator[Connection]:
        """A transaction that acts as `role`, for `tenant` where one is given; nothing of it outlives it.

        A connection whose server was restarted is found dead by BEGIN: nothing was asked yet, so the transaction is
        begun once more, on a new one. What fails later is for the caller to ask again. A read-only transaction is
        ended after the caller has gone on; if that fails, it has given its answers all the same. Raises what `acquire`
        raises; a server that does not answer BEGIN within the acquire timeout is `Unreachable`. Statements are ended by
        the server after the statement timeout (`asyncpg.QueryCanceledError`).
        """
        connection, transaction = await self._begin(role, tenant, readonly)
        try:
            yield connection
        except BaseException:
            await _roll_back(connection, transaction)
            await self._release(connection)
            raise
        if readonly:
            # Nobody waits for it: that would be a third of the time that a small query takes.
            ending = asyncio.create_task(self._commit(connection, transaction, readonly=True))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
        else:
            await self._commit(connection, transaction, readonly=False)

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
            begun_again=self._begun_again,
            cut_off=self._cut_off,
        )

    async def close(self, *, within_s: float | None = None) -> int:
        """Waits for the requests at hand until the drain deadline, then cuts them off; how many. Idempotent."""
        self._closing = True
        deadline = asyncio.get_running_loop().time() + (self._options.drain_s if within_s is None else within_s)
        try:
            async with asyncio.timeout_at(deadline):
                while self._held or self._waiting:
                    self._vacant.clear()
                    await self._vacant.wait()
                await self._pool.close()
        except TimeoutError:
            if not self._cut:
                self._cut, self._cut_off = True, self._held
            self._pool.terminate()
        return self._cut_off

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._options.acquire_timeout_s

    async def _acquire(self, deadline: float) -> Lent:
        if self._closing:
            raise self._stopped()
        began, attempt = time.monotonic(), _Attempt()
        token = _attempt.set(attempt)
        self._waiting += 1
        try:
            async with asyncio.timeout_at(deadline):
                connection = await self._pool.acquire()
        except TimeoutError:
            raise self._late(attempt) from None
        except asyncpg.InterfaceError:  # it waited until the drain deadline was over
            raise self._stopped() from None
        else:
            self._acquired += 1
            self._held += 1
            return connection
        finally:
            _attempt.reset(token)
            self._waiting -= 1
            self._waits_ms.append((time.monotonic() - began) * 1_000)
            self._vacant.set()

    def _stopped(self) -> Unreachable:
        return Unreachable(f"this process stops, and so do its connections to {self._address}: ask another process")

    def _late(self, attempt: _Attempt) -> Unreachable:
        timeout_s = self._options.acquire_timeout_s
        if attempt.connecting or self._pool.get_size() == 0:
            return Unreachable(
                f"PostgreSQL at {self._address} did not take a connection within {timeout_s:g} s: ask again"
            )
        self._exhausted += 1
        return PoolExhausted(
            f"none of {self._options.size} connections to PostgreSQL came free within {timeout_s:g} s: ask again later,"
            " or raise RELIGHT_POOL_SIZE"
        )

    async def _release(self, connection: Lent) -> None:
        try:
            await self._pool.release(connection, timeout=ENDING_S)
        except (TimeoutError, asyncpg.PostgresError, *GONE):
            return  # asyncpg has cut it, and makes a new one
        finally:
            self._held -= 1
            self._vacant.set()

    async def _commit(self, connection: Lent, transaction: Any, *, readonly: bool) -> None:
        try:
            async with asyncio.timeout(ENDING_S if readonly else None):
                await transaction.commit()
        except TimeoutError:
            _cut(connection)
            if not readonly:
                raise
        except GONE:
            if not readonly:
                raise
        finally:
            await self._release(connection)

    async def _begin(self, role: Role, tenant: str | None, readonly: bool) -> tuple[Lent, Any]:
        deadline, again = self._deadline(), True
        while True:
            connection = await self._acquire(deadline)
            transaction = connection.transaction(readonly=readonly)
            try:
                async with asyncio.timeout_at(deadline):
                    await transaction.start()
                    await act_as(connection, role, tenant, statement_timeout_s=self._options.statement_timeout_s)
                return connection, transaction
            except TimeoutError:  # which is an OSError as well
                _cut(connection)
                await self._release(connection)
                raise Unreachable(
                    f"PostgreSQL at {self._address} did not begin within {self._options.acquire_timeout_s:g} s: ask"
                    " again"
                ) from None
            except GONE as error:
                await self._release(connection)
                if not again:
                    raise Unreachable(f"PostgreSQL at {self._address} went away ({error}); ask again") from error
                log.info("connection was dead: %r", error, extra={"action": "begun_again"})
                again = False
                self._begun_again += 1
                await self._pool.expire_connections()  # a restarted server has ended the others as well
            except BaseException:
                await _roll_back(connection, transaction)
                await self._release(connection)
                raise


async def _roll_back(connection: Lent, transaction: Any) -> None:
    """Within ENDING_S, else the connection is cut: a server that hangs would keep whoever asked it waiting."""
    try:
        async with asyncio.timeout(ENDING_S):
            await transaction.rollback()
    except (TimeoutError, asyncio.CancelledError, asyncpg.InterfaceError):
        # The last one of a transaction that was cancelled while it began: asyncpg does not roll it back.
        _cut(connection)
    except (asyncpg.PostgresError, *GONE):
        return  # what failed is being told already; a connection that is closed leaves the pool


def _cut(connection: Lent) -> None:
    with suppress(asyncpg.InterfaceError):  # asyncpg has cut it already
        connection.terminate()


async def open_pool(url: str, options: PoolOptions | None = None) -> Pool:
    """A pool with its first connection made. Raises `Unreachable`, here and from every acquire that connects again."""
    chosen = options or PoolOptions()

    async def connect(*args: Any, **options: Any) -> Session:
        attempt = _attempt.get()
        if attempt is not None:
            attempt.connecting = True
        connection = await connect_to(url, chosen.connect_s, **options)
        if attempt is not None:
            attempt.connecting = False
        return connection

    pool: AsyncpgPool = await asyncpg.create_pool(
        url,
        min_size=1,
        max_size=chosen.size,
        connect=connect,
        connection_class=PooledConnection,
        init=_decode_values,
        reset=_nothing_to_reset,
        command_timeout=chosen.statement_timeout_s + CLIENT_GRACE_S,
        statement_cache_size=0,
        server_settings={"application_name": chosen.name},
    )
    return Pool(pool, chosen, url)


async def act_as(
    connection: Connection, role: Role, tenant: str | None, *, statement_timeout_s: float | None = None
) -> None:
    """Become `role` for `tenant` until the end of this transaction; one statement, so PgBouncer does not matter.

    `statement_timeout_s`: how long the server lets each statement after this one run; as it was where none is given.
    """
    await connection.execute(
        "SELECT set_config('role', $1, true), set_config('relight.tenant', $2, true),"
        " set_config('statement_timeout', coalesce($3, current_setting('statement_timeout')), true)",
        role,
        tenant or "",
        None if statement_timeout_s is None else milliseconds(statement_timeout_s),
    )


async def _decode_values(connection: Connection) -> None:
    """Client-side only: for pg_catalog's types asyncpg asks the server nothing."""
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=orjson.loads)
    await connection.set_type_codec("uuid", schema="pg_catalog", encoder=str, decoder=str)


async def _nothing_to_reset(connection: Connection) -> None:
    """asyncpg's RESET ALL on release would cost a round trip, for what transactions undo themselves."""
