"""The parts of a service, each as one `with` or its end: it finishes what it has in hand, in its share of the time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from nats.aio.client import Client

from relight.engine.archiving import archive_opener
from relight.engine.health.probe import service_id
from relight.engine.log.topology import close
from relight.engine.options import recorder_options
from relight.engine.proving.answering import answering
from relight.engine.proving.asking import Attestations, Attester
from relight.engine.proving.building import polling_prober
from relight.engine.recorder.recorder import Recorder
from relight.engine.servers import Servers
from relight.engine.settings import Settings
from relight.engine.stopping import Stopping
from relight.engine.tables.connecting import Session, connect_session
from relight.engine.tables.pools import PROJECTOR_ROLE, Pool
from relight.engine.tables.projector import Projector

if TYPE_CHECKING:
    from faststream import FastStream

    from relight.engine.http.server import HttpServer

POLL_S = 0.02
HANGS_S = 10.0
"""A projector that stops for so long in the middle of a transaction hangs: PostgreSQL ends it."""
UNREACHED_S = 1.0
"""How long a server that does not answer is still waited for at the end."""
CLOSING_S = 2.0
REQUESTS, MESSAGES, RECEIPTS, BATCH = 0.6, 0.75, 0.85, 0.95
"""Shares of the drain time, in the order of stopping."""
EVERYTHING = 1.0


@asynccontextmanager
async def proving(client: Client, servers: Servers, settings: Settings) -> AsyncIterator[Attester]:
    """A prober that answers others, where we know whom to ask; else those of other services are asked."""
    prober = polling_prober(client, servers, ttl_s=settings.proof_ttl_s, name=service_id(settings.region))
    if prober is None:
        yield Attestations(client, ttl_s=settings.proof_ttl_s)
        return
    async with answering(client, prober):
        yield prober


async def answered(http: "HttpServer", stopping: Stopping) -> None:
    within_s = stopping.left_s(REQUESTS)
    await stopping.within(REQUESTS, http.stop(within_s=within_s))
    if cut_off := await http.stop(within_s=0):
        stopping.cuts(f"{cut_off} HTTP requests were not answered within {within_s:.1f} s")


@asynccontextmanager
async def answering_messages(app: "FastStream", stopping: Stopping) -> AsyncIterator[None]:
    from relight.engine.messaging.application import stop_application

    await app.start()
    try:
        yield
    finally:
        if not await stopping.within(MESSAGES, stop_application(app)):
            stopping.cuts("messages at hand were not answered: their senders will ask again")


@asynccontextmanager
async def recording(servers: Servers, settings: Settings, stopping: Stopping) -> AsyncIterator[Recorder]:
    recorder = Recorder(recorder_options(servers, settings))
    try:
        await asyncio.to_thread(recorder.start)
        yield recorder
    finally:
        await stopping.within(RECEIPTS, _acknowledged(recorder))
        left_s = min(CLOSING_S, stopping.left_s(RECEIPTS))
        await asyncio.shield(asyncio.to_thread(recorder.stop, deadline_s=left_s))
        if exposed := recorder.health().exposed_events:
            where = (
                "they wait in its spool, for whoever records here next"
                if settings.spool
                else "they are lost with this process"
            )
            stopping.cuts(f"{exposed} events of {recorder.publisher} were not acknowledged by the stream: {where}")


async def _acknowledged(recorder: Recorder) -> None:
    """Waits until all is, or nobody answers."""
    heard_at = asyncio.get_running_loop().time()
    while (health := recorder.health()).exposed_events:
        now = asyncio.get_running_loop().time()
        if health.failure is None:
            heard_at = now
        elif now - heard_at > UNREACHED_S:
            return
        await asyncio.sleep(POLL_S)


@asynccontextmanager
async def projecting(
    client: Client, servers: Servers, settings: Settings, stopping: Stopping
) -> AsyncIterator["tuple[Projector, asyncio.Task[None]]"]:
    def connect() -> "asyncio.Future[Session]":
        return asyncio.ensure_future(
            connect_session(
                servers.database_url,
                role=PROJECTOR_ROLE,
                statement_timeout_s=settings.session_statement_timeout_s,
                idle_in_transaction_s=HANGS_S,
            )
        )

    projector = Projector(client, connect, open_archive=archive_opener(settings))
    running = asyncio.create_task(projector.run(), name="projector")
    try:
        yield projector, running
    finally:
        if not await stopping.within(BATCH, _ended(running)):
            projector.abort()
            stopping.cuts("the projector's batch was rolled back: it will be projected again")
            await asyncio.wait([running], timeout=CLOSING_S)


async def _ended(running: "asyncio.Task[None]") -> None:
    running.cancel()
    await asyncio.wait([running])


async def drained(pool: Pool, stopping: Stopping) -> None:
    within_s = stopping.left_s()
    await stopping.within(EVERYTHING, pool.close(within_s=within_s))
    if cut_off := await pool.close(within_s=0):
        stopping.cuts(f"{cut_off} transactions were not finished within {within_s:.1f} s and were rolled back")


async def closed(client: Client, stopping: Stopping) -> None:
    await stopping.within(EVERYTHING, close(client))
