"""Queries, digests, migrations, rebuilds and retention."""

from collections.abc import Mapping, Sequence

from relight.engine.app.connections import clock, projector_session, query_pool, rebuild_sessions, stream_client
from relight.engine.archiving import archive_opener
from relight.engine.servers import found_servers
from relight.engine.settings import Settings
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.digest import Digest, digest_memory, digest_postgres
from relight.engine.tables.keeping import Keeping
from relight.engine.tables.migrate import Applied, MigrationStatus, migrate, status
from relight.engine.tables.queries import find, parse, run
from relight.engine.tables.rebuild import Rebuild, Rebuilt
from relight.engine.tables.refolding import Advanced
from relight.engine.tables.retention import Retention, Trimmed, in_archive, on_stream
from relight.engine.tables.retention_plan import Plan, plan
from relight.engine.tables.rollback import RolledBack, drop_previous, roll_back
from relight.projections.catalog import projections
from relight.projections.query import Row


async def ask(settings: Settings, name: str, *, tenant: str, limit: int, arguments: Mapping[str, object]) -> list[Row]:
    """One declared query; it is looked up and its arguments are checked before any server is asked."""
    query = find(name)
    parse(query, arguments)
    async with query_pool(settings) as pool:
        return await run(pool, query, tenant=tenant, arguments=arguments, limit=limit)


async def take_digest(settings: Settings, *, memory: bool, up_to_seq: int | None = None) -> Digest:
    """Of PostgreSQL's tables, or of tables folded in memory, which needs no database: from the stream, and what that
    was trimmed of from the archive. Raises `HistoryGone` where there is none."""
    if memory:
        async with stream_client(settings) as client:
            return await digest_memory(client, up_to_seq=up_to_seq, open_archive=archive_opener(settings))
    async with projector_session(settings) as session:
        return await digest_postgres(session)


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
            open_archive=archive_opener(settings),
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
        places, open_archive = [on_stream(client)], archive_opener(settings)
        if open_archive is not None:
            places.append(in_archive(open_archive))
        retention = Retention(session, places, keeping, now=clock().now(), advanced=advanced)
        return await retention.run()
