"""Composes what one region's service does for its fleet."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from relight.engine.errors import RecorderError
from relight.engine.policies.isolation import IsolationPolicy
from relight.engine.policies.phi_accrual import PhiPolicy
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.detector import Detector
from relight.engine.regions.failing_over import FailingOver
from relight.engine.regions.heard import Heard
from relight.engine.regions.heartbeats import SERVICE, Heartbeats
from relight.engine.regions.isolations import Isolations
from relight.engine.regions.leadership import Leadership
from relight.engine.regions.liveness import Liveness
from relight.engine.regions.moving_queues import MovingQueues
from relight.engine.regions.parts import Parts
from relight.engine.regions.progress import Progress
from relight.engine.regions.receipts.announced import Announced
from relight.engine.regions.receipts.closer import ReceiptCloser
from relight.engine.regions.receipts.followed import Receipts
from relight.engine.regions.receipts.making import ReceiptMaker
from relight.engine.regions.replicating import Replicator
from relight.engine.regions.routing import RoutingTable
from relight.engine.regions.sights import Seeing
from relight.engine.servers import Servers
from relight.engine.tables.projector import Projector
from relight.engine.tasks.dispatcher import Dispatcher
from relight.engine.topology.model import Kind, Topology
from relight.events.failover import StandIn

LEAVING_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What the parts of one region's service stand on."""

    recorder: Recorder
    region: str
    projector: Projector | None
    servers: Servers
    spools: Path
    """The folder of those that have to be drained before this region may have its traffic back."""


class RegionParts:
    """The parts that others ask for are attributes; all of them run, and tell their failures."""

    def __init__(self, topology: Topology, ground: Ground) -> None:
        recorder, fleet, names = ground.recorder, topology.fleet, topology.names
        self._recorder = recorder
        self.topology = topology
        self.region = topology.known(ground.region)
        self.progress = Progress(recorder, ground.projector, ground.servers.monitors, spools=ground.spools)
        self.heard = Heard(recorder, policy=PhiPolicy(threshold=fleet.suspect_phi, expected_s=fleet.heartbeat_s))
        self.isolations = Isolations(recorder, names)
        self.liveness = Liveness(recorder, self.heard, self.isolations, names)
        self.detector = Detector(recorder, self.heard, self.isolations, IsolationPolicy.of(names), observer=self.region)
        self.routing = RoutingTable(recorder, fleet.name)
        self.dispatcher = Dispatcher(recorder, self.heard, routing=self.routing, liveness=self.liveness)
        self.announced = Announced(self.heard)
        self.failing_over = FailingOver(
            recorder,
            self.routing,
            region=self.region,
            sights=Seeing(recorder.clock, self.heard, self.isolations, self.liveness, names),
            ready=self.progress.ready,
            drained=self._drained,
            may_return=self.progress.may_return,
            leave=Leadership(recorder),
            make_receipt=ReceiptMaker(recorder, fleet.name, self.announced),
        )
        self.moving_queues = MovingQueues(recorder, self.routing, region=self.region, waiting=self._waiting)
        self.heartbeats = Heartbeats(recorder, SERVICE, self.region, self._fields, every_s=fleet.heartbeat_s)
        self.liveness.changed.append(lambda _kind, _name, _standing: self.failing_over.wake())
        self.routing.on_change(self.dispatcher.wake)
        self.receipts = Receipts(recorder, fleet.name)
        self.closer = ReceiptCloser(
            recorder, self.receipts, self.announced, is_back=self.heard.hears_now, turn=self._turn
        )
        self._parts = Parts(recorder)
        self._parts.add(
            progress=self.progress,
            heard=self.heard,
            isolations=self.isolations,
            liveness=self.liveness,
            detector=self.detector,
            routing=self.routing,
            dispatcher=self.dispatcher,
            failing_over=self.failing_over,
            moving_queues=self.moving_queues,
            receipts=self.receipts,
            closer=self.closer,
            heartbeats=self.heartbeats,
        )
        if topology.fleet.kind is Kind.STRETCH:
            self._parts.add(replicator=Replicator(recorder, self.region))

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
        return {**self.progress.fields(), **self.failing_over.fields()}

    def _turn(self) -> int:
        """How many other regions that take traffic are named before this one."""
        active = self.routing.active
        return active.index(self.region) if self.region in active else len(active)

    async def _drained(self, one: StandIn) -> bool:
        """Whether this region's workers hold no task any more."""
        return self.dispatcher.held_in(self.region) == 0

    async def _waiting(self, queue: str) -> int | None:
        return self.dispatcher.task_count(queue)


@asynccontextmanager
async def regional(topology: Topology, ground: Ground) -> AsyncIterator[RegionParts]:
    """They run until the `with` ends. Raises `TopologyRefused` when the region is not the topology's."""
    parts = RegionParts(topology, ground)
    async with parts.running():
        try:
            yield parts
        finally:
            await parts.leave()
