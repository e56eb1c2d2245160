"""The one place that wires things together: what `relight.open` and each command need, and nothing else connects."""

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import TypeVar

from anyio.from_thread import start_blocking_portal
from nats.aio.client import Client

from relight.engine.clock import Clock
from relight.engine.doctor.examine import Step, examine
from relight.engine.doctor.models import Report, Result
from relight.engine.doctor.patient import Openers, Patient
from relight.engine.doctor.settings import read_settings
from relight.engine.embedded.home import HomeLock, Running, running
from relight.engine.errors import SettingsError, Unreachable
from relight.engine.health.asking import fetch_health, request_health
from relight.engine.health.models import Health
from relight.engine.health.probe import HealthProbe, Watched
from relight.engine.importers.importing import ImportedFile, import_file
from relight.engine.importers.scanning import Scan
from relight.engine.log.proof import Prober
from relight.engine.log.recorder import Recorder
from relight.engine.log.topology import REQUEST_TIMEOUT_S, close, connect, ensure_stream
from relight.engine.options import pool_options, recorder_options
from relight.engine.running import run_service
from relight.engine.runtime import Relight
from relight.engine.servers import Servers, embedded_servers, found_servers
from relight.engine.service import PROJECTOR_ROLE, Parts, Service, caught_up, serving
from relight.engine.settings import Settings
from relight.engine.sync import SyncRelight
from relight.engine.tables.connecting import Session, connect_probe, connect_session
from relight.engine.tables.digest import Digest, digest_memory, digest_postgres
from relight.engine.tables.keeping import Keeping
from relight.engine.tables.migrate import Applied, MigrationStatus, migrate, status
from relight.engine.tables.pools import Pool, open_pool
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
            await close(client)


@asynccontextmanager
async def query_pool(settings: Settings) -> AsyncIterator[Pool]:
    """A pool for queries; on servers of ours, after all is projected."""
    async with ready_servers(settings) as (servers, service):
        if service is not None:
            await caught_up(service, within_s=CATCH_UP_S)
        async with await open_pool(servers.database_url, pool_options(settings, size=2)) as pool:
            yield pool


@asynccontextmanager
async def health_source(
    settings: Settings, *, url: str | None = None
) -> AsyncIterator[Callable[[], Awaitable[Health]]]:
    """How to ask for health, again and again: the service at `url` or of this home, one over NATS, else a look of our
    own. What is yielded raises `Unreachable`."""
    yours = settings.nats_url or settings.database_url
    if url is None and not yours and (up := running(settings.home)) is not None:
        with suppress(Unreachable):
            await fetch_health(up.health_url)
            url = up.health_url
    async with AsyncExitStack() as stack:
        if url is not None:
            yield partial(fetch_health, url)
            return
        servers, service = await stack.enter_async_context(ready_servers(settings))
        if service is not None:
            await caught_up(service, within_s=CATCH_UP_S)
            yield service.health
            return
        client = await connect(servers.nats_url, name="relight status")
        stack.push_async_callback(close, client)
        watched = Watched(
            client=client,
            connect=lambda: connect_probe(servers.database_url),
            home=settings.home,
            region=settings.region,
            prober=Prober(client, monitor_urls=servers.monitors, ttl_s=settings.proof_ttl_s),
        )
        probe = await stack.enter_async_context(HealthProbe(watched))

        async def ask() -> Health:
            return await request_health(client) or await probe.check()

        yield ask


async def check_health(settings: Settings, *, url: str | None = None) -> Health:
    """Asks the service that runs; where none answers, looks itself."""
    async with health_source(settings, url=url) as ask:
        return await ask()


async def examine_installation(
    *,
    environment: Mapping[str, str] | None = None,
    began: Callable[[Step], None] = lambda step: None,
    ended: Callable[[Result], None] = lambda result: None,
) -> Report:
    """Everything that the settings lead to, used once; `began` and `ended` are told of each step."""
    settings, faults = read_settings(environment)

    @asynccontextmanager
    async def serving_servers() -> AsyncIterator[Servers]:
        async with ready_servers(settings) as (servers, _):
            yield servers

    async def running_service(client: Client | None) -> Health | None:
        yours = settings.nats_url or settings.database_url
        up = None if yours else running(settings.home)
        fixed = f"http://{settings.http_host}:{settings.http_port}" if settings.http_port else None
        for url in (up.health_url if up else None, fixed):
            if url is not None:
                with suppress(Unreachable):
                    return await fetch_health(url)
        return await request_health(client) if client else None

    openers = Openers(
        serving=serving_servers,
        nats=partial(connect, name="relight doctor"),
        postgres=lambda url, parameters: connect_probe(url, name="relight-doctor", parameters=parameters),
        pool=lambda url: open_pool(url, pool_options(settings)),
        prober=lambda client, servers: Prober(client, monitor_urls=servers.monitors, ttl_s=settings.proof_ttl_s),
        service=running_service,
    )
    async with AsyncExitStack() as stack:
        tag = f"relight-doctor-{os.urandom(6).hex()}"
        patient = Patient(settings=settings, faults=faults, openers=openers, stack=stack, tag=tag)
        return await examine(patient, began=began, ended=ended)


async def run_up(settings: Settings, announce: Callable[[Running], None]) -> list[str]:
    """Servers, projector, ingest and API in the foreground until SIGINT or SIGTERM; servers of yours are only used.

    `announce` is called once all of it answers. Gives what was cut off when it stopped. Raises `EmbeddedServerError`
    when a server of ours ends by itself.
    """
    if settings.nats_url or settings.database_url:
        async with found_servers(settings) as servers:
            return await run_service(servers, settings, Parts(), announce)
    with HomeLock(settings.home) as lock:

        def say(running: Running) -> None:
            lock.announce(running)
            announce(running)

        async with embedded_servers(settings.home) as servers:
            return await run_service(servers, settings, Parts(), say)


async def run_serve(settings: Settings, parts: Parts, announce: Callable[[Running], None]) -> list[str]:
    """Some parts, or all, for servers of yours, which are waited for as long as it takes; otherwise as `run_up`."""
    if not (settings.nats_url and settings.database_url):
        raise SettingsError(
            "relight serve needs RELIGHT_NATS_URL and RELIGHT_DATABASE_URL: set both, or let `relight up` start servers"
        )
    async with found_servers(settings) as servers:
        return await run_service(servers, settings, parts, announce, patient=True)


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


async def with_pool(settings: Settings, work: Callable[[Pool], Awaitable[T]]) -> T:
    """Some work with a pool, in whichever role."""
    async with query_pool(settings) as pool:
        return await work(pool)


@asynccontextmanager
async def rebuild_sessions(settings: Settings, work: str) -> AsyncIterator[tuple[Client, Session, Session, Connect]]:
    """A client of the stream, two sessions, and what opens more; named so that another can say who is at `work`."""
    async with AsyncExitStack() as stack:
        servers, _ = await stack.enter_async_context(ready_servers(settings))
        client = await connect(servers.nats_url, name=f"relight {work}", bodies_only=True)
        stack.push_async_callback(close, client)
        name = f"relight {work}, process {os.getpid()} on {socket.gethostname()}"[:63]
        open_session = partial(
            connect_session,
            servers.database_url,
            role=PROJECTOR_ROLE,
            statement_timeout_s=settings.session_statement_timeout_s,
            name=name,
        )
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
            await close(client)


def clock() -> Clock:
    """The wall clock."""
    return Clock()
