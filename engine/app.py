"""The one place that wires things together: what `relight.open` and each command need, and nothing else connects."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import TypeVar

from anyio.from_thread import start_blocking_portal
from nats.aio.client import Client

from relight.engine.clock import Clock
from relight.engine.embedded.home import HomeLock, Running
from relight.engine.health import Health, HealthProbe
from relight.engine.http.api import ApiParts, build_api
from relight.engine.http.server import http_server
from relight.engine.importers.importing import ImportedFile, Scan, import_file
from relight.engine.ingest import Ingest
from relight.engine.log.reader import TRANSIENT
from relight.engine.log.recorder import Recorder, RecorderOptions
from relight.engine.log.topology import REQUEST_TIMEOUT_S, connect, ensure_stream
from relight.engine.log.watermarks import ProjectedWatermarks
from relight.engine.runtime import Relight
from relight.engine.servers import Servers, embedded_servers, found_servers
from relight.engine.service import PROJECTOR_ROLE, STATUS, Service, caught_up, projecting, serving
from relight.engine.settings import Settings
from relight.engine.sync import SyncRelight
from relight.engine.tables.connecting import Session, connect_session
from relight.engine.tables.digest import Digest, digest_memory, digest_postgres
from relight.engine.tables.keeping import Keeping
from relight.engine.tables.migrate import Applied, MigrationStatus, migrate, status
from relight.engine.tables.pools import Pool, PoolOptions, open_pool
from relight.engine.tables.queries import find, parse, run
from relight.engine.tables.rebuild import Rebuild, Rebuilt
from relight.engine.tables.refolding import Advanced
from relight.engine.tables.retention import Retention, Trimmed, on_stream
from relight.engine.tables.retention_plan import Plan, plan
from relight.engine.tables.rollback import RolledBack, drop_previous, roll_back
from relight.engine.tables.workers import Connect
from relight.projections.catalog import projections
from relight.projections.query import Row

T = TypeVar("T")

CATCH_UP_S = 60.0
STATUS_TIMEOUT_S = 5.0


def recorder_options(servers: Servers, settings: Settings) -> RecorderOptions:
    """The settings, as the recorder wants them."""
    return RecorderOptions(
        nats_url=servers.nats_url,
        nats_monitor_urls=servers.monitors,
        region=settings.region,
        tenant=settings.tenant,
        spools=settings.home / "spool" if settings.spool else None,
        spool_max_bytes=settings.spool_max_bytes,
        spool_retention_s=settings.spool_retention_s,
        memory_max_events=settings.memory_max_events,
        ack_timeout_s=settings.ack_timeout_s,
        proof_ttl_s=settings.proof_ttl_s,
    )


def pool_options(settings: Settings, *, size: int | None = None) -> PoolOptions:
    """The settings, as a pool wants them."""
    return PoolOptions(
        size=size or settings.pool_size,
        acquire_timeout_s=settings.pool_acquire_timeout_s,
        statement_timeout_s=settings.statement_timeout_s,
        drain_s=settings.drain_s,
    )


@asynccontextmanager
async def ready_servers(settings: Settings) -> AsyncIterator[tuple[Servers, Service | None]]:
    """The servers, and the service where nobody else runs one: then leaving waits until all is projected."""
    async with found_servers(settings) as servers:
        if not servers.ours:
            yield servers, None
            return
        async with serving(servers, settings) as service:
            yield servers, service
            await caught_up(service, within_s=CATCH_UP_S)


@asynccontextmanager
async def open_relight(settings: Settings, *, clock: Clock | None = None) -> AsyncIterator[Relight]:
    """A recorder and a pool on the servers that the settings lead to."""
    async with AsyncExitStack() as stack:
        servers, _ = await stack.enter_async_context(ready_servers(settings))
        pool = await stack.enter_async_context(await open_pool(servers.database_url, pool_options(settings)))
        recorder = await stack.enter_async_context(Recorder(recorder_options(servers, settings), clock=clock))
        yield Relight(recorder, pool, region=settings.region, tenant=settings.tenant)


@contextmanager
def open_relight_sync(settings: Settings, *, clock: Clock | None = None) -> Iterator[SyncRelight]:
    """`open_relight` for code without a loop: one runs in a thread of its own meanwhile."""
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(open_relight(settings, clock=clock)) as relight,
    ):
        yield SyncRelight(relight, portal)


@asynccontextmanager
async def projector_session(settings: Settings) -> AsyncIterator[Session]:
    """A database session that acts as the projector; on servers of ours, after all is projected."""
    async with ready_servers(settings) as (servers, service):
        if service is not None:
            await caught_up(service, within_s=CATCH_UP_S)
        session = await connect_session(servers.database_url, role=PROJECTOR_ROLE)
        try:
            yield session
        finally:
            await session.close(timeout=2)


@asynccontextmanager
async def stream_client(settings: Settings) -> AsyncIterator[Client]:
    """A NATS client; PostgreSQL is not touched where the servers are yours."""
    async with found_servers(settings) as servers:
        client = await connect(servers.nats_url, name="relight reader", bodies_only=True)
        try:
            if servers.ours:
                await ensure_stream(client.jetstream(timeout=REQUEST_TIMEOUT_S))
            yield client
        finally:
            await client.close()


@asynccontextmanager
async def query_pool(settings: Settings) -> AsyncIterator[Pool]:
    """A pool for queries; on servers of ours, after all is projected."""
    async with ready_servers(settings) as (servers, service):
        if service is not None:
            await caught_up(service, within_s=CATCH_UP_S)
        async with await open_pool(servers.database_url, pool_options(settings, size=2)) as pool:
            yield pool


async def check_health(settings: Settings) -> Health:
    """Asks the service that runs; where none answers, looks itself."""
    async with ready_servers(settings) as (servers, service):
        if service is not None:
            await caught_up(service, within_s=CATCH_UP_S)
            return await service.health()
        client = await connect(servers.nats_url, name="relight status")
        try:
            with suppress(*TRANSIENT):
                answer = await client.request(STATUS, b"", timeout=STATUS_TIMEOUT_S)
                return Health.model_validate_json(answer.data)
            async with await open_pool(servers.database_url, pool_options(settings, size=2)) as pool:
                return await HealthProbe(client, pool, None, spools=settings.home / "spool").check()
        finally:
            await client.close()


async def run_up(settings: Settings, announce: Callable[[Running], None]) -> None:
    """Servers, projector and `/health` in the foreground until SIGINT or SIGTERM; servers of yours are only used.

    `announce` is called once all of it answers. Raises `EmbeddedServerError` when a server of ours ends by itself.
    """
    async with AsyncExitStack() as stack:
        lock: HomeLock | None = None
        if settings.nats_url or settings.database_url:
            servers = await stack.enter_async_context(found_servers(settings))
        else:
            lock = stack.enter_context(HomeLock(settings.home))
            servers = await stack.enter_async_context(embedded_servers(settings.home))
        service = await stack.enter_async_context(projecting(servers, settings))
        recorder = await stack.enter_async_context(Recorder(recorder_options(servers, settings)))
        parts = ApiParts(
            pool=service.pool,
            ingest=Ingest(recorder),
            watermarks=ProjectedWatermarks(service.client),
            health=service.health,
        )
        served = http_server(
            build_api(parts), host=settings.http_host, port=settings.http_port, drain_s=settings.drain_s
        )
        http = await stack.enter_async_context(served)
        running = Running(
            nats_url=servers.nats_url,
            monitor_url=",".join(servers.monitors),
            database_url=servers.database_url,
            health_url=f"{http.url}/health",
            pid=os.getpid(),
        )

        async def say() -> None:
            if lock is not None:
                lock.announce(running)
            announce(running)

        service.app.after_startup(say)
        if servers.ended is None:
            await service.app.run()
        else:
            await _first_of(service.app.run(), servers.ended())


async def _first_of(application: Awaitable[None], ended: Awaitable[None]) -> None:
    tasks = [asyncio.ensure_future(application), asyncio.ensure_future(ended)]
    done, late = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    for task in done:
        await task


async def ask(settings: Settings, name: str, *, tenant: str, limit: int, arguments: Mapping[str, object]) -> list[Row]:
    """One declared query; it is looked up and its arguments are checked before any server is asked."""
    query = find(name)
    parse(query, arguments)
    async with query_pool(settings) as pool:
        return await run(pool, query, tenant=tenant, arguments=arguments, limit=limit)


async def take_digest(settings: Settings, *, memory: bool, up_to_seq: int | None = None) -> Digest:
    """Of PostgreSQL's tables, or of tables folded in memory from the stream, which needs no database."""
    if memory:
        async with stream_client(settings) as client:
            return await digest_memory(client, up_to_seq=up_to_seq)
    async with projector_session(settings) as session:
        return await digest_postgres(session)


async def with_session(settings: Settings, work: Callable[[Session], Awaitable[T]]) -> T:
    """Some work in a session of the projector's role."""
    async with projector_session(settings) as session:
        return await work(session)


@asynccontextmanager
async def rebuild_sessions(settings: Settings, work: str) -> AsyncIterator[tuple[Client, Session, Session, Connect]]:
    """A client of the stream, two sessions, and what opens more; named so that another can say who is at `work`."""
    async with AsyncExitStack() as stack:
        servers, _ = await stack.enter_async_context(ready_servers(settings))
        client = await connect(servers.nats_url, name=f"relight {work}", bodies_only=True)
        stack.push_async_callback(client.close)
        name = f"relight {work}, process {os.getpid()} on {socket.gethostname()}"[:63]
        open_session = partial(connect_session, servers.database_url, role=PROJECTOR_ROLE, name=name)
        keeper, builder = await open_session(), await open_session()
        stack.push_async_callback(keeper.close, timeout=2)
        stack.push_async_callback(builder.close, timeout=2)
        yield client, keeper, builder, open_session


async def rebuild_tables(
    settings: Settings, names: Sequence[str], *, accept_difference: bool, advanced: Advanced
) -> Rebuilt:
    """Of the projections of these names, or of all. Raises `RebuildRefused`."""
    chosen = [projection for projection in projections() if not names or projection.name in names]
    async with rebuild_sessions(settings, "rebuild") as (client, keeper, builder, open_session):
        rebuild = Rebuild(
            client,
            keeper,
            builder,
            chosen,
            clock=clock(),
            connect=open_session,
            accept_difference=accept_difference,
            advanced=advanced,
        )
        return await rebuild.run()


async def roll_back_tables(settings: Settings, *, advanced: Advanced) -> RolledBack:
    """The latest rebuild's. Raises `RebuildRefused`."""
    async with rebuild_sessions(settings, "rollback") as (client, keeper, builder, _):
        return await roll_back(client, keeper, builder, clock=clock(), advanced=advanced)


async def drop_previous_tables(settings: Settings) -> int:
    """How many there were."""
    async with rebuild_sessions(settings, "rebuild") as (_, keeper, _builder, _connect):
        return await drop_previous(keeper)


async def plan_retention(settings: Settings, keeping: Keeping) -> Plan:
    """What would be trimmed now."""
    async with rebuild_sessions(settings, "retention") as (client, session, _, _connect):
        return await plan(session, client, keeping, now=clock().now())


async def apply_retention(settings: Settings, keeping: Keeping, advanced: Advanced) -> Trimmed:
    """Raises `RebuildRefused` while a rebuild runs."""
    async with rebuild_sessions(settings, "retention") as (client, session, _, _connect):
        retention = Retention(session, [on_stream(client)], keeping, now=clock().now(), advanced=advanced)
        return await retention.run()


async def migrate_database(settings: Settings, *, dry_run: bool) -> list[Applied]:
    """Raises `MigrationError`, `Unreachable`."""
    async with found_servers(settings) as servers:
        session = await connect_session(servers.database_url)
        try:
            return await migrate(session, dry_run=dry_run)
        finally:
            await session.close(timeout=2)


async def migration_status(settings: Settings) -> list[MigrationStatus]:
    async with found_servers(settings) as servers:
        session = await connect_session(servers.database_url)
        try:
            return await status(session)
        finally:
            await session.close(timeout=2)


async def import_files(
    settings: Settings, scans: Sequence[Scan], *, advanced: Callable[[int], None]
) -> list[ImportedFile]:
    """Records what was scanned and is not on the stream yet; `advanced` is told the rows done."""
    async with ready_servers(settings) as (servers, _):
        client = await connect(servers.nats_url, name="relight import")
        try:
            options = recorder_options(servers, settings)
            return [
                await import_file(found, client=client, options=options, clock=clock(), advanced=advanced)
                for found in scans
            ]
        finally:
            await client.close()


def clock() -> Clock:
    """The wall clock."""
    return Clock()
