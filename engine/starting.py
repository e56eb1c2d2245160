"""Waiting for NATS and PostgreSQL, for as long as it takes; what waiting will not mend is raised at once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from nats.aio.client import Client

from relight.engine.errors import AccessRefused, MigrationError, Unreachable
from relight.engine.health.readiness import Readiness
from relight.engine.log.reader import TRANSIENT
from relight.engine.log.topology import REQUEST_TIMEOUT_S, Headers, connect, ensure_stream, named
from relight.engine.tables.connecting import CONNECT_S, GONE, address, connect_to
from relight.engine.tables.migrate import migrate
from relight.engine.tables.pools import Pool, PoolOptions, open_pool

ELECTING_S = 1.0
FIRST_RETRY_S, LAST_RETRY_S = 0.1, 2.0

T = TypeVar("T")

log = logging.getLogger(__name__)


class Startup:
    """`patient`: servers that are away are waited for, as `readiness` then says; else the first error is raised."""

    def __init__(self, readiness: Readiness, *, patient: bool) -> None:
        self._readiness = readiness
        self._patient = patient

    async def stream_client(
        self, nats_url: str, *, name: str = "relight projector", headers: Headers = Headers.NONE, replicas: int = 1
    ) -> Client:
        """A client for reading, with the stream declared. Raises `AccessRefused`, `Unreachable`."""
        return await self._waited(named(nats_url), lambda: _stream_client(nats_url, name, headers, replicas))

    async def migrated(self, database_url: str) -> None:
        """Brings the tables up to this release. Raises `AccessRefused`, `MigrationError`, `Unreachable`."""
        await self._waited(f"PostgreSQL at {address(database_url)}", lambda: _migrated(database_url))

    async def pool(self, database_url: str, options: PoolOptions) -> Pool:
        """Raises `AccessRefused`, `Unreachable`."""
        return await self._waited(f"PostgreSQL at {address(database_url)}", lambda: open_pool(database_url, options))

    async def _waited(self, server: str, attempt: Callable[[], Awaitable[T]]) -> T:
        retry_s = FIRST_RETRY_S
        while True:
            self._readiness.starting(f"waiting for {server}")
            try:
                return await attempt()
            except AccessRefused:
                raise
            except (Unreachable, MigrationError, *TRANSIENT, *GONE) as error:
                if not self._patient or (isinstance(error, MigrationError) and not isinstance(error.__cause__, GONE)):
                    raise
                self._readiness.starting(f"waiting for {server}: {error}")
                log.info("waiting for %s: %s", server, error, extra={"action": "waiting"})
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, LAST_RETRY_S)


async def _stream_client(nats_url: str, name: str, headers: Headers, replicas: int) -> Client:
    client = await connect(nats_url, name=name, headers=headers)
    try:
        # What is asked while a cluster elects its leader is never answered: better asked again soon.
        timeout_s = REQUEST_TIMEOUT_S if replicas == 1 else ELECTING_S
        await ensure_stream(client.jetstream(timeout=timeout_s), replicas=replicas)
    except BaseException:
        await client.close()
        raise
    return client


async def _migrated(database_url: str) -> None:
    # Without cached statements, so that a PgBouncer in transaction mode will do; without the pool's timeout.
    connection = await connect_to(
        database_url, CONNECT_S, statement_cache_size=0, server_settings={"application_name": "relight-migrate"}
    )
    try:
        await migrate(connection, beside_newer=True)
    finally:
        try:
            await connection.close(timeout=2)
        except (TimeoutError, *GONE):
            connection.terminate()
