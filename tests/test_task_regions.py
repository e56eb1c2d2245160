"""Queues over regions: one of them gives out tasks, another does when the routing moves, and all count what came."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import pytest_asyncio
from stack import until
from tasking import LEASE_S, Stage, staged

from relight.engine.log.control import ControlLog
from relight.engine.policies.failover_commands import Declare, Life, Sight
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.commands import FailoverCommands
from relight.engine.regions.heard import Heard
from relight.engine.regions.isolations import Isolations
from relight.engine.regions.liveness import Liveness
from relight.engine.regions.routing import RoutingTable
from relight.engine.tasks.dispatcher import Dispatcher
from relight.engine.tasks.replicating import Replicated
from relight.engine.tasks.task import Task
from relight.engine.tasks.working import Working
from relight.events.base import Control
from relight.events.envelope import PLATFORM
from relight.events.failover import FleetRegion, Manner
from relight.events.faults import DomainType, FaultIsolated
from relight.events.queues import QueueDeclared, QueueReplicated
from relight.events.tasks import ReleaseCause, TaskCompleted, TaskReassigned, TaskReleased

pytestmark = pytest.mark.asyncio(loop_scope="module")
REGIONS = ("eu", "us")
SIGHTS = {name: Sight(life=Life.ALIVE, caught_up=True) for name in REGIONS}
EU, US = "eu", "us"


@dataclass
class Region:
    """What one region's service runs for its tasks."""

    recorder: Recorder
    table: RoutingTable
    dispatcher: Dispatcher
    working: Working


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    async with staged() as stage:
        stage.end_dispatcher()
        yield stage


@asynccontextmanager
async def region(stage: Stage, name: str, fleet: str) -> AsyncIterator[Region]:
    async with stage.another(name, tenant=PLATFORM) as (recorder, _), stage.another(name) as (_, working):
        heard, table, isolations = Heard(recorder), RoutingTable(recorder, fleet), Isolations(recorder)
        liveness = Liveness(recorder, heard, isolations, REGIONS)
        dispatcher = Dispatcher(recorder, heard, routing=table, liveness=liveness, lease_s=LEASE_S)
        dispatcher._replicated = Replicated(recorder, dispatcher.leading, every_s=0.1)
        parts = [recorder.in_loop(part.run()) for part in (heard, table, isolations, liveness, dispatcher)]
        await stage.in_loop(table.known(), recorder)
        await until(lambda: dispatcher.failure is None, f"the dispatcher of {name} has read the tasks")
        yield Region(recorder, table, dispatcher, working)
        for part in parts:
            part.cancel()


async def ruled(stage: Stage, ruling: Control) -> None:
    """Of the platform's, as whoever rules on such things would."""

    async def append(log: ControlLog) -> None:
        tail = await log.tail(type(ruling), tenant=PLATFORM, entity=ruling.entity)
        await log.append(ruling, after=tail, tenant=PLATFORM, policy_version="test")

    await stage.in_loop(stage.recorder.with_control(append))


async def declared(stage: Stage, fleet: str, queue: str) -> FailoverCommands:
    commands = FailoverCommands(stage.recorder, fleet, sights=lambda: SIGHTS)
    await commands.declare(Declare(regions=tuple(FleetRegion(name=name) for name in REGIONS)))
    ruling = QueueDeclared(
        queue_name=queue, primary_region=EU, replica_regions=(US,), is_active=True, reason="the topology says so"
    )
    await ruled(stage, ruling)
    return commands


async def replicated(stage: Stage, queue: str) -> QueueReplicated | None:
    told = [event.data for event in await stage.events(PLATFORM)]
    return next((one for one in told if isinstance(one, QueueReplicated) and one.queue_name == queue), None)


async def test_when_the_routing_moves_another_region_gives_out_the_tasks(stage: Stage) -> None:
    commands = await declared(stage, "moves", "moving")
    worked: list[tuple[str, str]] = []
    async with region(stage, EU, "moves") as eu, region(stage, US, "moves") as us:
        for here, name in ((eu, EU), (us, US)):

            @here.working.register("moving")
            async def work(task: Task, name: str = name) -> None:
                worked.append((name, task.id))

        async def submit(*names: str) -> None:
            for name in names:
                await stage.submit("moving", tenant="moving", task=name)

        async def done(tasks: int) -> None:
            await until(lambda: len(worked) == tasks, f"{tasks} tasks are done")

        async with us.working.working():
            await submit("1", "2")
            await done(2)
            assert us.dispatcher.leading.leader("moving") == EU, "to workers of every region eu gives out tasks"
            first = await until(lambda: replicated(stage, "moving"), "us says how much it has of it")
            assert (first.from_region, first.to_region) == (EU, US)
            assert first.task_count > 0
            assert first.lag_ms is not None
            async with eu.working.working():
                await commands.start(EU, manner=Manner.GRACEFUL, ordered_by="kim", reason="maintenance")
                await until(lambda: us.dispatcher.leading.leads("moving"), "us leads the queue")
                await until(lambda: not eu.dispatcher.leading.leads("moving"), "eu knows")
                await submit(*(str(n) for n in range(3, 20)))
                await done(19)
    assert {name for name, _ in worked} == {US}, "who drains is given nothing more"
    assert sorted(int(task) for _, task in worked) == list(range(1, 20))


async def test_what_a_lost_region_held_is_taken_over_by_another(stage: Stage) -> None:
    await declared(stage, "lost", "losing")
    begun = asyncio.Event()
    async with region(stage, EU, "lost") as eu, region(stage, US, "lost") as us:

        @eu.working.register("losing")
        async def hang(task: Task) -> None:
            begun.set()
            await asyncio.sleep(60)

        @us.working.register("losing")
        async def work(task: Task) -> None:
            assert task.taken_over is not None

        await stage.submit("losing", tenant="losing", task="t")
        async with eu.working.working(drain_s=0) as worker:
            await begun.wait()
            await until(lambda: us.dispatcher.held_in(EU) == 1, "every region knows who holds it")
            assert (eu.dispatcher.held_in(EU), us.dispatcher.held_in(US)) == (1, 0)
            assert eu.dispatcher.task_count("losing") == 1
            async with us.working.working():
                isolated = FaultIsolated(
                    domain_type=DomainType.ENGINE, domain_identifier=worker.id, cause="silent", scope="it alone"
                )
                await ruled(stage, isolated)
                await until(lambda: eu.dispatcher.known() == us.dispatcher.known() == [], "us has done it")
                await until(lambda: not worker.held, "what ran in eu is cancelled")
    rulings = (await stage.rulings("losing"))["t"]
    assert isinstance(rulings[-1].data, TaskCompleted)
    [released] = [event.data for event in rulings if isinstance(event.data, TaskReleased)]
    [taken] = [event.data for event in rulings if isinstance(event.data, TaskReassigned)]
    assert released.cause is ReleaseCause.OWNER_LOST
    assert (taken.from_region, taken.owner_region) == (EU, US)
