"""A region's servers on this machine, started for the length of a `with`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from relight.engine.embedded.home import make_home, region_home
from relight.engine.embedded.nats import AGENT, SYSTEM, USER, EmbeddedNats
from relight.engine.embedded.postgres import EmbeddedPostgres
from relight.engine.servers import Servers, first_ended
from relight.engine.topology.local import kept_cluster, members_of
from relight.engine.topology.model import Kind, Topology


@asynccontextmanager
async def region_servers(
    home: Path, topology: Topology, region: str, *, durable: bool = True
) -> AsyncIterator[Servers]:
    """Its members of the cluster and its PostgreSQL; they answer, but the cluster may not have a quorum yet."""
    cluster = kept_cluster(home, topology)
    here = region_home(home, region)
    make_home(here.parent)
    alone = topology.fleet.kind is Kind.EMBEDDED
    natses = [
        EmbeddedNats(
            here if name == region else here / name,
            member=None if alone else cluster.member(topology, region, name),
            sync_always=durable,
        )
        for name in members_of(topology, region)
    ]
    postgres = EmbeddedPostgres(here, durable=durable)
    servers = (*natses, postgres)
    async with AsyncExitStack() as stack:
        await asyncio.gather(*(stack.enter_async_context(server) for server in servers))
        names = ("nats",) if len(natses) == 1 else tuple(f"nats-{number}" for number in range(1, len(natses) + 1))
        yield Servers(
            nats=natses[0].url if alone else cluster.urls(USER, topology, region),
            monitors=tuple(nats.monitor_url for nats in natses),
            database=postgres.url,
            ours=True,
            system=natses[0].system_url if alone else cluster.urls(SYSTEM, topology, region),
            agents=natses[0].agent_url if alone else cluster.urls(AGENT, topology, region),
            ended=partial(first_ended, servers),
            replicas=topology.replicas,
            region=region,
            pids={name: server.pid for name, server in zip((*names, "postgres"), servers, strict=True)},
        )
