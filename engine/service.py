"""What one process runs beside the servers, as one `with`: its parts start in one order and stop in another."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nats.aio.client import Client
from prometheus_client import CollectorRegistry

from relight.engine.archiving import archiving
from relight.engine.healing.service import healing_beside
from relight.engine.health.metrics import register_metrics
from relight.engine.health.models import Health
from relight.engine.health.probe import HealthProbe, Watched
from relight.engine.health.readiness import Readiness
from relight.engine.ingest import Ingest
from relight.engine.log.reader import TRANSIENT
from relight.engine.log.topology import STREAM, Headers
from relight.engine.log.watermarks import ProjectedWatermarks
from relight.engine.options import http_limits, pool_options
from relight.engine.proving.asking import Attester
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.service import Ground, regional
from relight.engine.rulings import Rulings
from relight.engine.servers import Servers
from relight.engine.service_parts import (
    MESSAGES,
    answered,
    answering_messages,
    closed,
    drained,
    projecting,
    proving,
    recording,
)
from relight.engine.settings import Settings
from relight.engine.starting import Startup
from relight.engine.stopping import Stopping
from relight.engine.tables.connecting import connect_probe
from relight.engine.tables.pools import PROJECTOR_ROLE as PROJECTOR_ROLE
from relight.engine.tables.pools import Pool
from relight.engine.tables.projector import Projector
from relight.engine.tasks.serving import dispatching
from relight.engine.topology.loading import load_topology
from relight.events.catalog import prepare

if TYPE_CHECKING:
    from faststream import FastStream

    from relight.engine.http.server import HttpServer

POLL_S = 0.02


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Which parts a process runs; what it answers over NATS it always does.

    `listens`: an address for the health endpoints, and with `api` for the API. `ingest`: events are taken from outside.
    `archive`: where RELIGHT_ARCHIVE is set. `healing`: beside a projector, watches for events that the stream has lost.
    """

    projector: bool = True
    listens: bool = True
    api: bool = True
    ingest: bool = True
    archive: bool = True
    healing: bool = True

    def __str__(self) -> str:
        names = {"projector": self.projector, "API": self.listens and self.api, "ingest": self.ingest}
        names["archive"] = self.archive
        return ", ".join(name for name, runs in names.items() if runs) or "health only"


PROJECTING = Parts(listens=False, api=False, ingest=False, archive=False, healing=False)


@dataclass(frozen=True, kw_only=True)
class Service:
    """All of it is there from the start of `serving` until its end."""

    client: Client
    pool: Pool
    projector: Projector | None
    recorder: Recorder | None
    app: "FastStream"
    probe: HealthProbe
    http: "HttpServer | None"

    async def health(self) -> Health:
        return await self.probe.check()


@asynccontextmanager
async def serving(
    servers: Servers,
    settings: Settings,
    parts: Parts = PROJECTING,
    *,
    readiness: Readiness | None = None,
    stopping: Stopping | None = None,
    patient: bool = False,
) -> AsyncIterator[Service]:
    """Runs the parts until the `with` ends, which finishes what they have in hand.

    They start from the servers up to who is answered, but the address is listened on first, so that whoever asks hears
    what is waited for. They stop the other way round: requests, messages, receipts, the batch, connections; `stopping`
    says how long that may take, and is told what was cut off.
    Raises `AccessRefused`, `MigrationError`, `SettingsError`; unless `patient`, `Unreachable`.
    """
    # What answers over HTTP and NATS takes longer to import than all else, and commands that only ask do not need it.
    from relight.engine.messaging.application import build_application

    readiness, stopping = readiness or Readiness(), stopping or Stopping(settings.drain_s)
    startup = Startup(readiness, patient=patient)
    prepare()
    async with AsyncExitStack() as stack:
        http = None
        if parts.listens:
            from relight.engine.http.api import ApiParts, Observed, build_api, build_probes
            from relight.engine.http.entry import Entry
            from relight.engine.http.feed import Feed
            from relight.engine.http.server import http_server

            entry = Entry(readiness)
            listening = http_server(
                entry,
                host=settings.http_host,
                port=settings.http_port,
                connections=settings.http_connections,
                receive_s=settings.http_receive_s,
            )
            http = await stack.enter_async_context(listening)
        client = await startup.stream_client(servers.nats_url, replicas=servers.replicas)
        stack.push_async_callback(closed, client, stopping)
        await startup.migrated(servers.database_url)
        pool = await startup.pool(servers.database_url, pool_options(settings))
        stack.push_async_callback(drained, pool, stopping)
        attester = await stack.enter_async_context(proving(client, servers, settings))
        archiver = sealing = projector = running = recorder = ingest = None
        if parts.archive and settings.archive is not None:
            reading = await startup.stream_client(servers.nats_url, name="relight archiver", headers=Headers.MESSAGE_ID)
            stack.push_async_callback(closed, reading, stopping)
            archiver, sealing = await stack.enter_async_context(archiving(reading, servers, settings, stopping))
        if parts.projector:
            following = projecting(client, servers, settings, stopping)
            projector, running = await stack.enter_async_context(following)
        if parts.ingest:
            recorder = await stack.enter_async_context(recording(servers, settings, stopping))
            ingest = Ingest(recorder)
        region = None
        if recorder is not None and settings.topology is not None:
            ground = Ground(
                recorder=recorder,
                region=settings.region,
                projector=projector,
                servers=servers,
                spools=settings.home / "spool",
            )
            region = await stack.enter_async_context(regional(load_topology(settings.topology), ground))
        elif recorder is not None:
            await stack.enter_async_context(dispatching(recorder))
        if parts.projector and parts.healing:
            turn = region.heals if region is not None else _always
            await stack.enter_async_context(healing_beside(servers, settings, recorder, turn=turn))
        probe = await stack.enter_async_context(
            HealthProbe(_watched(client, pool, projector, attester, servers, settings))
        )
        probe.readiness, probe.recorder = readiness, recorder.health if recorder is not None else None
        probe.region_parts = region.failures if region is not None else None
        if running is not None:
            probe.vital.watch("projector", running)
        if archiver is not None and sealing is not None:
            probe.archiver = archiver.seen
            probe.vital.watch("archiver", sealing)
        registry = CollectorRegistry()
        register_metrics(registry, probe)
        watch = projector.watch if projector is not None else _nobody
        watermarks = ProjectedWatermarks(client)
        app = build_application(
            servers.nats_url,
            pool=pool,
            watermarks=watermarks,
            health=probe.check,
            watch=watch,
            registry=registry,
            ingest=ingest,
            rulings=None if recorder is None else Rulings(recorder),
            drain_s=stopping.left_s(MESSAGES),
        )
        await stack.enter_async_context(answering_messages(app, stopping))
        if http is not None:
            stack.push_async_callback(answered, http, stopping)
            observed = Observed(probe=probe, readiness=readiness, registry=registry)
            api_parts = ApiParts(
                pool=pool,
                ingest=ingest,
                watermarks=watermarks,
                observed=observed,
                feed=Feed(client, pool),
                limits=http_limits(settings),
                receive_s=settings.http_receive_s,
            )
            entry.open(build_api(api_parts) if parts.api else build_probes(observed))
        readiness.ready()
        stack.callback(stopping.begin)
        yield Service(client=client, pool=pool, projector=projector, recorder=recorder, app=app, probe=probe, http=http)


def _watched(
    client: Client, pool: Pool, projector: Projector | None, attester: Attester, servers: Servers, settings: Settings
) -> Watched:
    return Watched(
        client=client,
        connect=lambda: connect_probe(servers.database_url),
        home=settings.home,
        region=settings.region,
        tenant=settings.tenant,
        pools={"requests": pool},
        projector=projector,
        prober=attester,
    )


def _always() -> bool:
    """Nobody else heals."""
    return True


def _nobody(publisher: str) -> None:
    """No projector here that could announce progress."""


async def caught_up(service: Service, *, within_s: float) -> bool:
    """Waits until everything on the stream is in the tables; False when that takes longer."""
    deadline = asyncio.get_running_loop().time() + within_s
    projector = service.projector
    assert projector is not None, "there is no projector here to wait for"
    while asyncio.get_running_loop().time() < deadline:
        with suppress(*TRANSIENT):
            last_seq = (await service.client.jetstream(timeout=5).stream_info(STREAM)).state.last_seq
            if projector.position is not None and projector.position.seq >= last_seq:
                return True
        await asyncio.sleep(POLL_S)
    return False
