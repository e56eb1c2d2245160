"""Failovers from step to step, by the services of three regions on a real server, who rule beside each other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import clusters
import pytest
import stack
from folding import id_at, moment
from nats.aio.client import Client
from nats.js.errors import ServiceUnavailableError
from routing_history import Judge
from test_failover_commands import BY, FLEET, REGIONS

from relight.engine.errors import FailoverRefused
from relight.engine.log.control import ControlLog
from relight.engine.policies.failover_commands import Life, Sight, Sights
from relight.engine.policies.isolation import IsolationPolicy
from relight.engine.policies.phi_accrual import PhiPolicy
from relight.engine.recorder.options import RecorderOptions
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.detector import Detector
from relight.engine.regions.failing_over import FailingOver
from relight.engine.regions.heard import Heard
from relight.engine.regions.heartbeats import SERVICE, Heartbeats
from relight.engine.regions.isolations import Isolations
from relight.engine.regions.leadership import Leadership
from relight.engine.regions.liveness import Liveness
from relight.engine.regions.moving_queues import MovingQueues
from relight.engine.regions.routing import RoutingTable
from relight.engine.regions.sights import Seeing
from relight.events.catalog import decode
from relight.events.envelope import PLATFORM
from relight.events.failover import FailoverCompleted, FailoverStarted, Manner, Phase, StandIn
from relight.events.queues import QueueDeclared
from relight.events.values import Content

NAMES = tuple(region.name for region in REGIONS)
RECEIPT = Content(sha256="a" * 64, size_bytes=3)


@dataclass
class Region:
    """A region's service, and what it answers when a failover asks for it."""

    name: str
    recorder: Recorder
    table: RoutingTable
    runner: FailingOver
    queues: MovingQueues
    says: dict[str, bool]
    tasks: list[Any] = field(default_factory=list)

    def stop(self) -> None:
        for task in self.tasks:
            task.cancel()


@dataclass
class Fleet:
    regions: dict[str, Region]
    sights: dict[str, Sight]
    client: Client
    receipts: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    receipts_fail: int = 0
    """So many are not made at once."""

    @property
    def eu(self) -> Region:
        return self.regions["eu"]

    @property
    def us(self) -> Region:
        return self.regions["us"]

    async def agree(self, active: tuple[str, ...], *, done: bool = True) -> None:
        """Every living region's table comes to say so."""

        def all_do() -> bool:
            return all(
                region.table.active == active and (region.table.under_way() is None) == done
                for region in self.regions.values()
                if region.tasks
            )

        await stack.until(all_do, f"active are {active}")

    async def history(self) -> list[Any]:
        messages = [message for message in await stack.on_stream(self.client) if ".failover." in message.subject]
        return [decode(message.body) for message in messages if message.subject.startswith("ctl.")]

    async def judged(self) -> list[Any]:
        found = await self.history()
        Judge().judge(found)
        return found


def _asked(says: dict[str, bool], what: str) -> Any:
    async def asked(one: StandIn) -> bool:
        return says[what]

    return asked


@asynccontextmanager
async def fleet() -> AsyncIterator[Fleet]:
    """Three services beside each other; each hears at once what the others say of themselves."""
    async with AsyncExitStack() as opened:
        nats = await opened.enter_async_context(stack.nats_server(sync_always=False))
        client = await opened.enter_async_context(stack.connected(nats))
        made = Fleet({}, {name: Sight(life=Life.ALIVE, caught_up=True) for name in NAMES}, client)

        def sights() -> Sights:
            found = dict(made.sights)
            for name, region in made.regions.items():
                said = region.runner.fields()
                ready, drained = said["ready_for"], said["drained_for"]
                found[name] = Sight(
                    life=found[name].life,
                    suspected_by=found[name].suspected_by,
                    since=found[name].since,
                    caught_up=found[name].caught_up and said["may_return"] is not False,
                    ready_for=str(ready) if ready else None,
                    drained_for=str(drained) if drained else None,
                )
            return found

        async def receipt(one: StandIn) -> Content:
            if made.receipts_fail:
                made.receipts_fail -= 1
                raise ServiceUnavailableError
            made.receipts.append(one.failover)
            return RECEIPT

        async def leave(one: StandIn) -> None:
            made.left.append(one.source_region)

        async def waiting(queue: str) -> int:
            return 7

        for name in NAMES:
            options = stack.options(nats, region=name, tenant=PLATFORM)
            recorder = await opened.enter_async_context(Recorder(options))
            says = {"ready": True, "drained": True, "may_return": True}
            table = RoutingTable(recorder, "agents")
            runner = FailingOver(
                recorder,
                table,
                region=name,
                sights=sights,
                ready=_asked(says, "ready"),
                drained=_asked(says, "drained"),
                may_return=_asked(says, "may_return"),
                make_receipt=receipt,
                leave=leave,
            )
            queues = MovingQueues(recorder, table, region=name, waiting=waiting)
            region = made.regions[name] = Region(name, recorder, table, runner, queues, says)
            opened.callback(region.stop)
        await made.eu.runner.commands.declare(FLEET)
        for region in made.regions.values():
            parts = (region.table, region.runner, region.queues)
            region.tasks = [region.recorder.in_loop(part.run()) for part in parts]
        yield made


async def declare_queue(recorder: Recorder, name: str, primary: str, *replicas: str) -> None:
    async def work(control: ControlLog) -> None:
        tail = await control.tail(QueueDeclared, tenant=PLATFORM, entity=name)
        event = QueueDeclared(
            queue_name=name, primary_region=primary, replica_regions=replicas, is_active=True, reason="declared"
        )
        await control.append(event, after=tail, tenant=PLATFORM, policy_version="test")

    await asyncio.wrap_future(recorder.in_loop(recorder.with_control(work)))


async def test_a_receipt_that_the_stream_cannot_answer_for_a_moment_is_made_all_the_same() -> None:
    async with fleet() as made:
        made.receipts_fail = 1
        started = await made.us.runner.commands.start("eu", **BY)
        await made.agree(("us", "ap"))
        assert (made.receipts_fail, made.receipts) == (0, [started.failover])
        assert (await made.judged())[-1].data.receipt == RECEIPT


async def test_an_operators_failover_drains_switches_completes_and_comes_back_with_the_queues() -> None:
    async with fleet() as made:
        await declare_queue(made.eu.recorder, "refunds", "eu", "us", "ap")
        await declare_queue(made.eu.recorder, "mail", "ap", "us")
        made.eu.says["drained"] = False
        started = await made.us.runner.commands.start("eu", **BY)
        await made.agree(("us", "ap"), done=False)
        assert made.us.table.draining == ("eu",)
        made.eu.says["drained"] = True
        await made.agree(("us", "ap"))
        assert made.receipts == [started.failover]
        assert set(made.left) == {"eu"}
        queues = made.us.queues
        await stack.until(lambda: queues.queues["refunds"].ruling.primary_region == "us", "the queue moves")
        moved = queues.queues["refunds"].ruling
        assert (moved.TYPE, moved.replica_regions) == ("queues.failed_over", ("eu", "ap"))
        assert (moved.task_count, moved.home_region) == (7, "eu")  # type: ignore[attr-defined]
        assert queues.queues["mail"].ruling.primary_region == "ap"

        made.eu.says["may_return"] = False
        await stack.until(lambda: made.eu.runner.fields()["may_return"] is False, "eu says that it is not caught up")
        with pytest.raises(FailoverRefused, match="caught_up"):
            await made.us.runner.commands.back("eu", **BY)
        made.eu.says["may_return"] = True
        await stack.until(lambda: made.eu.runner.fields()["may_return"], "eu says that it has caught up")
        await made.us.runner.commands.back("eu", **BY)
        await made.agree(("eu", "us", "ap"))
        await stack.until(lambda: queues.queues["refunds"].ruling.primary_region == "eu", "the queue is back")
        assert queues.queues["refunds"].ruling.TYPE == "queues.recovered"
        found = await made.judged()
        assert [event.type.partition(".")[2] for event in found] == [
            "fleet_declared",
            "started",
            "started",
            "completed",
            "returned",
        ]
        assert found[3].data.receipt == RECEIPT
        assert {event.correlationid for event in found[1:4]} == {started.failover}


async def test_a_lost_region_is_failed_over_once_though_all_others_would() -> None:
    async with fleet() as made:
        made.eu.stop()
        made.eu.tasks = []
        made.us.says["ready"] = False
        made.sights["eu"] = Sight(life=Life.ISOLATED, suspected_by=2)
        await made.agree(("us", "ap"), done=False)
        assert made.receipts == []
        made.us.says["ready"] = True
        await made.agree(("us", "ap"))
        kinds = [type(event.data) for event in await made.judged()]
        assert kinds[1:] == [FailoverStarted, FailoverCompleted]


async def test_where_the_first_region_does_not_rule_the_next_one_does() -> None:
    async with fleet() as made:
        for name in ("eu", "us"):
            made.regions[name].stop()
            made.regions[name].tasks = []
        made.sights["eu"] = Sight(life=Life.ISOLATED, suspected_by=2)
        await made.agree(("us", "ap"), done=False)
        assert (await made.history())[1].region == "ap"


async def test_a_failover_is_aborted_and_an_override_ends_by_itself() -> None:
    async with fleet() as made:
        made.us.says["ready"] = False
        made.eu.says["drained"] = False
        await made.eu.runner.commands.start("eu", manner=Manner.FORCED, **BY)
        await made.agree(("us", "ap"), done=False)
        await made.eu.runner.commands.abort(**BY)
        await made.agree(("eu", "us", "ap"))
        ruled = await made.eu.runner.commands.override("residency", for_s=0.3, **BY)
        assert ruled.state.routing is not None
        assert ruled.state.routing.overrides[0].rules == ("residency",)
        await stack.until(lambda: made.us.table.rev == ruled.tail.rev + 1, "it is taken back")
        assert made.us.table.routing is not None
        assert made.us.table.routing.overrides == ()
        assert [event.type for event in await made.judged()][-2:] == ["failover.overridden", "failover.override_ended"]


async def test_a_region_whose_heartbeats_end_is_isolated_by_the_others_and_failed_over() -> None:
    quick = PhiPolicy(expected_s=0.1, pause_s=0.4, deviation_min_s=0.1)
    rules = IsolationPolicy.of(NAMES, for_s=0.2, steady_s=0.5, settle_s=0.5)
    async with AsyncExitStack() as opened:
        nats = await opened.enter_async_context(stack.nats_server(sync_always=False))
        await opened.enter_async_context(stack.connected(nats))
        running: dict[str, list[Any]] = {}
        tables = {}
        for name in NAMES:
            options = stack.options(nats, region=name, tenant=PLATFORM)
            recorder = await opened.enter_async_context(Recorder(options))
            heard, isolations = Heard(recorder, policy=quick), Isolations(recorder)
            liveness = Liveness(recorder, heard, isolations, NAMES)
            table = tables[name] = RoutingTable(recorder, "agents")
            seeing = Seeing(recorder.clock, heard, isolations, liveness, NAMES)
            runner = FailingOver(recorder, table, region=name, sights=seeing)
            beats = Heartbeats(
                recorder, SERVICE, name, lambda runner=runner: {**runner.fields(), "caught_up": True}, every_s=0.1
            )
            if name == "eu":
                await runner.commands.declare(FLEET)
            parts = (heard, isolations, liveness, Detector(recorder, heard, isolations, rules), table, runner, beats)
            running[name] = [recorder.in_loop(part.run()) for part in parts]  # type: ignore[attr-defined]
            for future in running[name]:
                opened.callback(future.cancel)
        await stack.until(lambda: all(sight.life is Life.ALIVE for sight in seeing().values()), "all hear each other")
        for future in running["eu"]:
            future.cancel()
        await stack.until(
            lambda: all(
                tables[name].active == ("us", "ap") and tables[name].under_way() is None for name in ("us", "ap")
            ),
            "eu is failed over",
        )
        assert tables["us"].moved("eu") == "us"


async def test_the_streams_leadership_leaves_the_source_for_the_target() -> None:
    async with clusters.cluster(clusters.STRONG, clusters.STRONG, clusters.STRONG) as members:
        async with clusters.joined(members[0]) as client:
            await clusters.declare(client)
            await clusters.settled(client)
            source = await clusters.leader(client)
            target = next(member.name for member in members if member.name != source)
            options = RecorderOptions(nats_url=members[0].url, region="eu", tenant=PLATFORM, spools=None)
            async with Recorder(options) as recorder:
                one = StandIn(
                    failover=id_at(1),
                    source_region=source,
                    target_region=target,
                    phase=Phase.DRAINING,
                    begun_at=moment(1),
                    since=moment(1),
                )
                await asyncio.wrap_future(recorder.in_loop(Leadership(recorder)(one)))
                assert await clusters.leader(client) == target
