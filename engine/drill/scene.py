"""A local topology under load, with the drill's links between its regions."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from nats.aio.client import Client

from relight.engine.drill.agents import Agents
from relight.engine.drill.asking import Asking, Connect
from relight.engine.drill.links import Links, proxied
from relight.engine.drill.load import Orders
from relight.engine.drill.plan import OWN_TOPOLOGY, QUEUE, Plan
from relight.engine.drill.processes import RegionProcess
from relight.engine.drill.stream import Stream
from relight.engine.embedded.home import Running
from relight.engine.embedded.nats import AGENT
from relight.engine.embedded.ports import LOOPBACK
from relight.engine.errors import DrillFailed, RelightError, SettingsError
from relight.engine.log.reader import TRANSIENT
from relight.engine.tables.digest import Digest, digest_postgres
from relight.engine.topology.loading import load_topology
from relight.engine.topology.local import LocalCluster, kept_cluster, routed_cluster
from relight.engine.topology.model import Kind, Topology

NOWHERE: Final = f"{LOOPBACK}:1"
LOOK_EVERY_S = 0.3
RESTS_S = 90.0
FAILED = (RelightError, *TRANSIENT)

Step = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Means:
    """What only the composition root can give. `apply` declares the topology, `back` gives a region its traffic."""

    connect: Callable[[str], Awaitable[Client]]
    session: Connect
    apply: Callable[[Path, Path, str], Awaitable[None]]
    back: Callable[[Path, Path, str, str], Awaitable[None]]


@dataclass
class Scene:
    """Everything that a scenario acts on; `step` is told what begins."""

    plan: Plan
    home: Path
    file: Path
    topology: Topology
    cluster: LocalCluster
    links: Links
    means: Means
    step: Step
    regions: dict[str, RegionProcess]
    ups: dict[str, Running] = field(default_factory=dict)
    agents: dict[str, Agents] = field(default_factory=dict)
    stream: Stream = field(default_factory=Stream)
    asking: Asking | None = None
    _agents_started: int = 0

    @property
    def ledgers(self) -> Path:
        return self.home / "ledgers"

    @property
    def queue(self) -> str:
        return self.topology.queues[0].name if self.topology.queues else QUEUE

    async def start(self, *regions: str) -> None:
        """Regions, all at the same time."""
        names = regions or self.topology.names
        await asyncio.gather(*(self.regions[name].start() for name in names))
        ready = await asyncio.gather(*(self.regions[name].ready() for name in names))
        self.ups |= dict(zip(names, ready, strict=True))

    async def load(self, *regions: str) -> None:
        """New agents, at work."""
        for region in regions or self.topology.names:
            self._agents_started += 1
            plan, number = self.plan, self._agents_started
            orders = Orders(
                region=region,
                number=number,
                seed=f"{plan.seed} {number}",
                nats_url=self.cluster.urls(AGENT, self.topology, region),
                spools=self.regions[region].folder / "agents",
                ledger=self.ledgers / f"{region}.{number}.ledger",
                queue=self.queue,
                events_per_s=plan.events_per_s,
                tasks_per_s=plan.tasks_per_s,
                steps=plan.steps,
                step_s=plan.step_s,
                concurrency=plan.concurrency,
            )
            self.agents[region] = Agents(orders, self.home / f"agents-{region}.log")
        await asyncio.gather(*(self.agents[region].start() for region in regions or self.topology.names))
        self.go()

    def go(self) -> None:
        for agents in self.agents.values():
            if agents.alive:
                agents.go()

    async def lose(self, region: str) -> float:
        """SIGKILL of all that is there; gives the moment."""
        at_s = time.monotonic()
        await asyncio.gather(self.agents[region].kill(), self.regions[region].kill())
        return at_s

    async def look(self) -> Stream:
        """The stream as far as it is now; as before while nobody answers."""
        with suppress(*FAILED):
            async with asyncio.timeout(10):
                client = await self.means.connect(self.cluster.urls(AGENT, self.topology, self._near()))
                try:
                    await self.stream.read(client)
                finally:
                    await client.close()
        return self.stream

    def _near(self) -> str:
        return next((name for name, region in self.regions.items() if region.up), self.topology.names[0])

    async def until(self, met: Callable[[Stream], bool], *, within_s: float) -> bool:
        """Looks until it is met; False when that takes too long."""
        deadline_s = time.monotonic() + within_s
        while not met(await self.look()):
            if time.monotonic() > deadline_s:
                return False
            await asyncio.sleep(LOOK_EVERY_S)
        return True

    async def rest(self) -> None:
        """All that was recorded is acknowledged, and every task that was submitted is finished, if it ever is."""
        await asyncio.gather(*(agents.rest() for agents in self.agents.values() if agents.alive))
        await self.until(lambda stream: not stream.unfinished(), within_s=RESTS_S)

    async def back(self, region: str, *, within_s: float = 45.0) -> None:
        """Gives it its traffic again, if that went elsewhere, as soon as the fleet's rules allow it.

        Raises `DrillFailed` with the rule that refused it last.
        """
        deadline_s, refused = time.monotonic() + within_s, ""
        while region not in (await self.look()).active and self.stream.active:
            try:
                await self.means.back(self.home, self.file, self._near(), region)
            except FAILED as error:
                refused = str(error)
            if time.monotonic() > deadline_s:
                raise DrillFailed(f"region {region} does not get its traffic back: {refused}")
            await asyncio.sleep(LOOK_EVERY_S)

    async def digests(self, *, within_s: float = 60.0) -> dict[str, Digest]:
        """Of every region's tables, at the same position; at the end of `within_s` as they are then."""
        deadline_s = time.monotonic() + within_s
        while True:
            found = dict(
                zip(self.ups, await asyncio.gather(*(self._digest(region) for region in self.ups)), strict=True)
            )
            last_seq = (await self.look()).position.seq
            if {digest.seq for digest in found.values()} == {last_seq} or time.monotonic() > deadline_s:
                return found
            await asyncio.sleep(LOOK_EVERY_S)

    async def _digest(self, region: str) -> Digest:
        session = await self.means.session(self.ups[region].database_url)
        try:
            return await digest_postgres(session)
        finally:
            await session.close(timeout=2)


@asynccontextmanager
async def staged(plan: Plan, home: Path, means: Means, step: Step) -> AsyncIterator[Scene]:
    """Regions up, topology applied, agents at work; all of it ends with the `with`.

    Raises `SettingsError` for a topology that is not local, `EmbeddedServerError`.
    """
    topology, file = _topology(plan, home)
    links = Links(topology.names, seed=plan.seed)
    before = kept_cluster(home, topology)
    routes = await proxied(links, {name: f"{LOOPBACK}:{before.ports[name].route}" for name in topology.names})
    clients = await proxied(links, {name: f"{LOOPBACK}:{before.ports[name].client}" for name in topology.names})
    cluster = routed_cluster(home, topology, routes, clients=clients, advertise=NOWHERE)
    scene = Scene(
        plan=plan,
        home=home,
        file=file,
        topology=topology,
        cluster=cluster,
        links=links,
        means=means,
        step=step,
        regions={name: RegionProcess(home, file, name) for name in topology.names},
    )
    scene.ledgers.mkdir()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(links.close)
        for region in scene.regions.values():
            stack.push_async_callback(region.kill_if_up)
        step("starting the regions")
        await scene.start()
        await means.apply(home, file, topology.names[0])
        step("starting the load")
        stack.push_async_callback(_ended, scene.agents)
        await scene.load()
        scene.asking = Asking({name: up.database_url for name, up in scene.ups.items()}, means.session)
        asked = asyncio.create_task(scene.asking.run())
        try:
            yield scene
        finally:
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)


async def _ended(agents: dict[str, Agents]) -> None:
    await asyncio.gather(*(one.kill() for one in agents.values()))


def _topology(plan: Plan, home: Path) -> tuple[Topology, Path]:
    file = home / "topology.toml"
    file.write_text(OWN_TOPOLOGY if plan.topology is None else plan.topology.read_text())
    topology = load_topology(file)
    if not topology.local or topology.fleet.kind is not Kind.STRETCH:
        raise SettingsError(
            f"{plan.topology} is no stretch of regions on this machine: a drill kills servers and deletes disks, so it"
            " starts its own; leave the addresses out of a copy of the file"
        )
    return topology, file
