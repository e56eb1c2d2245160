"""Composes what one region's service does for its fleet."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass

from pydantic import JsonValue

from relight.engine.errors import RecorderError
from relight.engine.policies.phi_accrual import PhiPolicy
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.heard import Heard
from relight.engine.regions.heartbeats import SERVICE, Heartbeats
from relight.engine.regions.parts import Parts
from relight.engine.regions.progress import Progress
from relight.engine.servers import Servers
from relight.engine.tables.pools import Pool
from relight.engine.tables.projector import Projector
from relight.engine.topology.model import Topology

LEAVING_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What the parts of one region's service stand on."""

    recorder: Recorder
    region: str
    pool: Pool
    projector: Projector | None
    servers: Servers


class RegionParts:
    """The parts that others ask for are attributes; all of them run, and tell their failures."""

    def __init__(self, topology: Topology, ground: Ground) -> None:
        recorder, fleet = ground.recorder, topology.fleet
        self._recorder = recorder
        self.topology = topology
        self.region = topology.known(ground.region)
        self.progress = Progress(recorder, ground.projector, ground.servers.monitors)
        self.heard = Heard(recorder, policy=PhiPolicy(threshold=fleet.suspect_phi, expected_s=fleet.heartbeat_s))
        self.heartbeats = Heartbeats(recorder, SERVICE, self.region, self._fields, every_s=fleet.heartbeat_s)
        self._parts = Parts(recorder)
        self._parts.add(progress=self.progress, heard=self.heard, heartbeats=self.heartbeats)

    def failures(self) -> Mapping[str, str | None]:
        return self._parts.failures()

    def running(self) -> AbstractAsyncContextManager[None]:
        return self._parts.running()

    async def leave(self) -> None:
        """Tells the others that this region stops on purpose."""
        with suppress(RecorderError, TimeoutError):
            async with asyncio.timeout(LEAVING_S):
                await asyncio.wrap_future(self._recorder.in_loop(self.heartbeats.leave()))

    def heals(self) -> bool:
        """Whether it is for this region to put lost events back: for the first that is heard, or else three would."""
        threshold = self.topology.fleet.suspect_phi
        for name in self.topology.names:
            if name == self.region:
                return True
            if self.heard.listening and self.heard.region_phi(name) < threshold:
                return False
        return True

    def _fields(self) -> Mapping[str, JsonValue]:
        """What goes out with this service's heartbeats."""
        return self.progress.fields()


@asynccontextmanager
async def regional(topology: Topology, ground: Ground) -> AsyncIterator[RegionParts]:
    """They run until the `with` ends. Raises `TopologyRefused` when the region is not the topology's."""
    parts = RegionParts(topology, ground)
    async with parts.running():
        try:
            yield parts
        finally:
            await parts.leave()
