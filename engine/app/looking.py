"""What `relight status` and `relight doctor` find."""

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from importlib.metadata import version

from nats.aio.client import Client

from relight.engine.app.connections import CATCH_UP_S, clock, ready_servers
from relight.engine.doctor.examine import Step, examine
from relight.engine.doctor.models import Report, Result
from relight.engine.doctor.patient import Openers, Patient
from relight.engine.doctor.settings import read_settings
from relight.engine.embedded.home import running
from relight.engine.errors import Unreachable
from relight.engine.health.asking import fetch_health, request_health
from relight.engine.health.models import Check, Health
from relight.engine.health.probe import HealthProbe, Watched
from relight.engine.health.spools import spool_checks
from relight.engine.log.topology import close, connect
from relight.engine.options import pool_options
from relight.engine.proving.asking import Attestations
from relight.engine.proving.building import single_prober
from relight.engine.servers import Servers
from relight.engine.service import caught_up
from relight.engine.settings import Settings
from relight.engine.spool.listing import list_spools
from relight.engine.tables.connecting import connect_probe
from relight.engine.tables.pools import open_pool


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
        prober = single_prober(client, servers, ttl_s=settings.proof_ttl_s)
        if prober is not None:
            stack.push_async_callback(prober.close)
        watched = Watched(
            client=client,
            connect=lambda: connect_probe(servers.database_url),
            home=settings.home,
            region=settings.region,
            tenant=settings.tenant,
            prober=prober or Attestations(client, ttl_s=settings.proof_ttl_s),
        )
        probe = await stack.enter_async_context(HealthProbe(watched))

        async def ask() -> Health:
            return await request_health(client) or await probe.check()

        yield ask


async def check_health(settings: Settings, *, url: str | None = None) -> Health:
    """Asks the service that runs; where none answers, looks itself."""
    async with health_source(settings, url=url) as ask:
        return await ask()


def check_here(settings: Settings, fault: Unreachable) -> Health:
    """What can be seen without servers: the spools of this home."""
    now = clock().now()
    spools = list_spools(settings.home / "spool")
    unreached = Check(component="servers", measurement="reachable", time=now, observed=False)
    return Health(
        service_id=f"relight:{settings.region}:{socket.gethostname()}:{os.getpid()}",
        release=version("relight"),
        checks=(unreached.failed(True, str(fault)), *spool_checks(spools, now)),
    )


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
        prober=partial(single_prober, ttl_s=settings.proof_ttl_s),
        service=running_service,
    )
    async with AsyncExitStack() as stack:
        tag = f"relight-doctor-{os.urandom(6).hex()}"
        patient = Patient(settings=settings, faults=faults, openers=openers, stack=stack, tag=tag)
        return await examine(patient, began=began, ended=ended)
