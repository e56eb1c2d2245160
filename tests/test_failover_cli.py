"""`relight failover`: what would move and which rules hold, a refusal that names its rule, exit codes, and JSON."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import stack
from test_failing_over import NAMES, declare_queue
from test_failover_commands import FLEET

from relight.engine.log.control import ControlLog
from relight.engine.policies.phi_accrual import PhiPolicy
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.failing_over import FailingOver
from relight.engine.regions.heard import Heard
from relight.engine.regions.heartbeats import PUBLISHER, SERVICE, Heartbeats
from relight.engine.regions.isolations import Isolations
from relight.engine.regions.liveness import Liveness
from relight.engine.regions.moving_queues import MovingQueues
from relight.engine.regions.routing import RoutingTable
from relight.engine.regions.sights import Seeing
from relight.events.envelope import PLATFORM
from relight.events.faults import DomainType, FaultIsolated

COMMAND = [sys.executable, "-m", "relight.engine.cli.main", "failover"]


async def isolate(recorder: Recorder, region: str) -> None:
    async def work(control: ControlLog) -> None:
        event = FaultIsolated(domain_type=DomainType.REGION, domain_identifier=region, cause="lost", scope="all")
        tail = await control.tail(FaultIsolated, tenant=PLATFORM, entity=event.domain)
        await control.append(event, after=tail, tenant=PLATFORM, policy_version="test")

    await asyncio.wrap_future(recorder.in_loop(recorder.with_control(work)))


@asynccontextmanager
async def three_services(nats: Any) -> AsyncIterator[RoutingTable]:
    """Of a declared fleet; eu leads a queue and has a publisher, and ap is isolated."""
    async with AsyncExitStack() as opened:
        for name in NAMES:
            recorder = await opened.enter_async_context(Recorder(stack.options(nats, region=name, tenant=PLATFORM)))
            heard, isolations = Heard(recorder, policy=PhiPolicy(expected_s=0.1)), Isolations(recorder)
            liveness = Liveness(recorder, heard, isolations, NAMES)
            table = RoutingTable(recorder, "agents")
            runner = FailingOver(
                recorder, table, region=name, sights=Seeing(recorder.clock, heard, isolations, liveness, NAMES)
            )
            parts: list[Any] = [heard, isolations, table, runner, MovingQueues(recorder, table, region=name)]
            if name == "eu":
                await runner.commands.declare(FLEET)
                await declare_queue(recorder, "refunds", "eu", "us")
                await isolate(recorder, "ap")
                parts.append(Heartbeats(recorder, PUBLISHER, "host-1.0", dict, every_s=0.1))
            if name != "ap":
                said = runner.fields
                parts.append(
                    Heartbeats(recorder, SERVICE, name, lambda said=said: {**said(), "caught_up": True}, every_s=0.1)
                )
            for part in parts:
                opened.callback(recorder.in_loop(part.run()).cancel)
        yield table


async def test_the_commands_say_what_would_move_refuse_by_name_and_move(database: str) -> None:
    async with stack.nats_server(sync_always=False) as nats, stack.projecting(nats, database) as projected:
        async with three_services(nats) as table:
            await projected.caught_up()
            with stack.folder() as home:
                environment = os.environ | {
                    "RELIGHT_NATS_URL": nats.url,
                    "RELIGHT_DATABASE_URL": database,
                    "RELIGHT_HOME": str(home),
                }

                async def failover(*arguments: str) -> tuple[int, str, str]:
                    child = await asyncio.create_subprocess_exec(
                        *COMMAND,
                        *arguments,
                        env=environment,
                        stdout=asyncio.subprocess.PIPE,
                        stderr=asyncio.subprocess.PIPE,
                    )
                    said, complained = await child.communicate()
                    return child.returncode or 0, said.decode(), complained.decode()

                why = ("--by", "kim", "--reason", "maintenance")
                planned, onto_dead = await asyncio.gather(
                    failover("start", "eu", "--dry-run", "--json", *why), failover("start", "eu", "--to", "ap", *why)
                )
                code, said, complained = planned
                assert code == 0, complained
                plan = json.loads(said)
                assert (plan["source"], plan["target"], plan["allowed"]) == ("eu", "us", True)
                assert plan["moves"] == {"queues": ["refunds"], "tasks": 0, "publishers": ["host-1.0"]}
                assert {rule["rule"] for rule in plan["rules"]} >= {"one_at_a_time", "residency", "changes_per_window"}
                assert onto_dead[0] == 1
                assert "refused (target_alive): ap is isolated: name another target" in onto_dead[2]
                assert table.rev == 1

                code, said, complained = await failover("start", "eu", "--json", *why)
                assert code == 0, complained
                failed_over = json.loads(said)["id"]
                await stack.until(lambda: table.moved("eu") == "us" and table.under_way() is None, "it is completed")
                code, said, complained = await failover("status", "--json")
                assert code == 0, complained
                status = json.loads(said)
                assert (status["alive"]["us"], status["alive"]["ap"]) == ("alive", "isolated")
                assert status["routing"]["active"] == ["us", "ap"]
                assert status["routing"]["standing"][0]["failover"] == failed_over
            await projected.caught_up()
            story = await projected.rows(
                "SELECT phase, ordered_by FROM failover_events WHERE failover = $1 ORDER BY event_id", failed_over
            )
            assert [row["phase"] for row in story] == ["draining", "switching", "completed"]
            await projected.digests_agree()
