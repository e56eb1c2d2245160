"""Servers, sessions, pools and clients for the length of a `with`; nothing else of ours opens one."""

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TypeVar

from nats.aio.client import Client

from relight.engine.clock import Clock
from relight.engine.log.topology import REQUEST_TIMEOUT_S, Headers, close, connect, ensure_stream
from relight.engine.options import pool_options
from relight.engine.servers import Servers, found_servers
from relight.engine.service import PROJECTOR_ROLE, Service, caught_up, serving
from relight.engine.settings import Settings
from relight.engine.tables.connecting import Session, connect_session
from relight.engine.tables.pools import Pool, open_pool
from relight.engine.tables.workers import Connect

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
        client = await connect(servers.nats_url, name="relight reader", headers=Headers.NONE)
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
        client = await connect(servers.nats_url, name=f"relight {work}", headers=Headers.NONE)
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


def clock() -> Clock:
    """The wall clock."""
    return Clock()
