"""What `relight failover` does: as an operator beside the regions' services, whose heartbeats it listens to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from relight.engine.clock import Clock
from relight.engine.errors import AckTimeout, RelightError
from relight.engine.options import recorder_options
from relight.engine.policies.failover import blocked
from relight.engine.policies.failover_commands import Life, RuleResult, Sights
from relight.engine.policies.routing import RoutingState, under_way
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.commands import Checked, FailoverCommands, Ruled
from relight.engine.regions.heard import Heard
from relight.engine.regions.heartbeats import PUBLISHER
from relight.engine.regions.isolations import Isolations
from relight.engine.regions.liveness import Liveness
from relight.engine.regions.sights import Seeing
from relight.engine.regions.would_move import led_and_held
from relight.engine.servers import found_servers
from relight.engine.settings import Settings
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.pools import PROJECTOR_ROLE
from relight.engine.topology.loading import load_topology
from relight.events.failover import Manner

LISTENS_S = 1.5
"""So long heartbeats are waited for; a region that is not heard by then counts as not alive."""
LOOK_EVERY_S = 0.05
DEFAULT_FLEET = "agents"


@dataclass(frozen=True, kw_only=True)
class WouldMove:
    """What leaves a region with its traffic; null: nobody could say."""

    queues: tuple[str, ...] | None
    tasks: int | None
    publishers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    checked: Checked
    moves: WouldMove


@dataclass(frozen=True, kw_only=True)
class Status:
    """`blocked`: the rule for which a failover that is due cannot be done."""

    state: RoutingState
    sights: Sights
    blocked: RuleResult | None


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """A fleet as an operator has it at hand."""

    commands: FailoverCommands
    heard: Heard
    seeing: Seeing
    database_url: str | None
    clock: Clock

    async def status(self) -> Status:
        state, sights = await self.commands.state(), self.seeing()
        return Status(state=state, sights=sights, blocked=blocked(state, self.clock.now(), sights))

    async def plan(self, source: str, *, to: str | None, manner: Manner, ordered_by: str, reason: str) -> Plan:
        checked = await self.commands.plan(source, to=to, manner=manner, ordered_by=ordered_by, reason=reason)
        return Plan(checked=checked, moves=await self._moves(source))

    async def completed(self, ruled: Ruled, *, within_s: float) -> bool:
        """Waits until a failover is; False when it was taken back instead. Raises `AckTimeout`."""
        deadline = asyncio.get_running_loop().time() + within_s
        while True:
            state = await self.commands.state()
            going = None if state.routing is None else under_way(state.routing)
            if going is None or going.failover != ruled.failover:
                stands = () if state.routing is None else state.routing.standing
                return any(one.failover == ruled.failover for one in stands)
            if asyncio.get_running_loop().time() > deadline:
                raise AckTimeout(
                    f"failover {ruled.failover} is {going.phase.value} after {within_s:g} s: see `relight failover"
                    " status`, and whether the services of the other regions run"
                )
            await asyncio.sleep(LOOK_EVERY_S * 4)

    async def _moves(self, source: str) -> WouldMove:
        publishers = tuple(sorted(beat.id for beat in self.heard.of(PUBLISHER, source)))
        if self.database_url is None:
            return WouldMove(queues=None, tasks=None, publishers=publishers)
        try:
            session = await connect_session(self.database_url, role=PROJECTOR_ROLE)
        except RelightError:  # a region's own database may be gone with it
            return WouldMove(queues=None, tasks=None, publishers=publishers)
        try:
            queues, tasks = await led_and_held(session, source)
        finally:
            await session.close(timeout=2)
        return WouldMove(queues=queues, tasks=tasks, publishers=publishers)


@asynccontextmanager
async def opened_fleet(settings: Settings, name: str | None) -> AsyncIterator[Fleet]:
    """Once its regions were heard, or had their time for it. Raises what finding servers does."""
    topology = None if settings.topology is None else load_topology(settings.topology)
    name = name or (topology.fleet.name if topology is not None else DEFAULT_FLEET)
    async with AsyncExitStack() as opened:
        servers = await opened.enter_async_context(found_servers(settings))
        recorder = await opened.enter_async_context(Recorder(recorder_options(servers, settings)))
        state = await FailoverCommands(recorder, name).state()
        regions = () if state.routing is None else tuple(region.name for region in state.routing.regions)
        heard, isolations = Heard(recorder), Isolations(recorder)
        liveness = Liveness(recorder, heard, isolations, regions)
        for part in (heard, isolations):
            opened.callback(recorder.in_loop(part.run()).cancel)
        seeing = Seeing(recorder.clock, heard, isolations, liveness, regions)
        await _listened(heard, isolations, seeing)
        yield Fleet(
            commands=FailoverCommands(recorder, name, sights=seeing),
            heard=heard,
            seeing=seeing,
            database_url=servers.database,
            clock=recorder.clock,
        )


async def _listened(heard: Heard, isolations: Isolations, seeing: Seeing) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LISTENS_S
    while loop.time() < deadline:
        known = heard.listening and isolations.failure is None
        if known and all(sight.life in (Life.ALIVE, Life.ISOLATED) for sight in seeing().values()):
            return
        await asyncio.sleep(LOOK_EVERY_S)
