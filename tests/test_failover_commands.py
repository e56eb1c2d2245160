"""Rulings on a fleet's routing, on a real server: rules and change are one, and everybody follows what was ruled."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import commanding_child
import pytest
import stack
from routing_history import Judge

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.errors import FailoverRefused
from relight.engine.policies.failover_commands import Declare, Life, Rule, Sight
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.commands import FailoverCommands
from relight.engine.regions.routing import RoutingTable
from relight.events.catalog import decode
from relight.events.failover import FleetRegion, Manner, StandBy

REGIONS = tuple(FleetRegion(name=name) for name in ("eu", "us", "ap"))
EU_LOST = StandBy(policy_name="eu-lost", source_region="eu", fallback_regions=("us", "ap"))
FLEET = Declare(regions=REGIONS, policies=(EU_LOST,), max_failovers=3)
ALIVE = {name: Sight(life=Life.ALIVE, caught_up=True) for name in ("eu", "us", "ap")}
BY = {"ordered_by": "kim", "reason": "maintenance"}


@dataclass
class Scene:
    """A recorder, its commands and what they are told of the regions."""

    recorder: Recorder
    commands: FailoverCommands
    nats: EmbeddedNats
    sights: dict[str, Sight] = field(default_factory=lambda: dict(ALIVE))

    async def here(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return await asyncio.wrap_future(self.recorder.in_loop(coroutine))


@asynccontextmanager
async def scene(fleet: str = "agents", *, declared: Declare | None = FLEET) -> AsyncIterator[Scene]:
    async with stack.nats_server(sync_always=False) as nats, stack.connected(nats):
        async with Recorder(stack.options(nats, tenant="-")) as recorder:
            made = Scene(recorder, FailoverCommands(recorder, fleet), nats)
            made.commands = FailoverCommands(recorder, fleet, sights=lambda: made.sights)
            if declared is not None:
                await made.commands.declare(declared)
            yield made


async def test_a_failover_is_started_completed_and_returned_and_the_table_follows() -> None:
    async with scene() as here:
        table = RoutingTable(here.recorder, "agents")
        following = here.recorder.in_loop(table.run())
        await here.here(table.known())
        assert table.active == ("eu", "us", "ap")
        ruled = await here.commands.start("eu", manner=Manner.GRACEFUL, **BY)
        await stack.until(lambda: table.rev == 2, "the table hears of it")
        assert (table.active, table.draining, table.moved("eu")) == (("us", "ap"), ("eu",), "us")
        assert not table.is_active("eu")
        assert not table.is_off("eu")
        with pytest.raises(FailoverRefused, match="one_at_a_time"):
            await here.commands.start("ap", to="us", **BY)
        assert ruled.failover == ruled.tail.event.id  # type: ignore[union-attr]
        following.cancel()


async def test_declaring_the_same_again_rules_nothing() -> None:
    async with scene() as here:
        again = await here.commands.declare(FLEET)
        assert (again.made, again.state.rev) == (False, 1)


async def test_nothing_is_ruled_on_a_fleet_that_is_not_declared() -> None:
    async with scene(declared=None) as here:
        with pytest.raises(FailoverRefused) as refused:
            await here.commands.start("eu", to="us", **BY)
        assert refused.value.rule == Rule.DECLARED


async def test_what_no_event_can_say_is_refused_and_the_table_stays_known_when_the_server_is_away() -> None:
    async with scene() as here:
        for refused in (
            here.commands.start("eu", to="us", ordered_by="kim\n", reason="x"),
            here.commands.declare(replace(FLEET, max_failovers=0)),
        ):
            with pytest.raises(FailoverRefused) as error:
                await refused
            assert error.value.rule == Rule.SAYABLE
        table = RoutingTable(here.recorder, "agents")
        assert table.failure is not None
        assert (table.active, table.is_active("eu"), table.is_off("eu"), table.moved("eu")) == ((), True, False, "eu")
        following = here.recorder.in_loop(table.run())
        await here.here(table.known())
        assert table.failure is None
        await here.nats.kill()
        await stack.until(lambda: table.failure is not None, "the table says that it hears nothing")
        assert table.active == ("eu", "us", "ap")
        await here.nats.start()
        await here.commands.start("eu", **BY)
        await stack.until(lambda: table.failure is None and table.rev == 2, "it hears again, and has missed nothing")
        following.cancel()


async def test_of_a_thousand_orders_at_once_none_breaks_a_rule_and_each_refusal_says_why() -> None:
    """Sensible and not, by operators in three processes; who judges the history shares no code with the policy."""
    async with stack.nats_server(sync_always=False) as nats, stack.connected(nats) as client:
        children = [await _child(nats.url, seed) for seed in (1, 2)]
        async with Recorder(stack.options(nats, tenant="-")) as recorder:
            commands = FailoverCommands(recorder, "agents", sights=lambda: commanding_child.SIGHTS)
            await commands.declare(commanding_child.FLEET)
            await commands.override(Rule.TARGET_READY, for_s=3_600, **BY)
            for child in children:
                assert child.stdin is not None
                child.stdin.write(b"go\n")
            came = await commanding_child.give_all(recorder, 3, 334)
            for child in children:
                output, _ = await child.communicate()
                came += Counter(json.loads(output)["came"])
        messages = [message for message in await stack.on_stream(client) if message.subject == "ctl.failover.-.agents"]
    stack.assert_chained(messages, "ctl.failover.-.agents")
    judge = Judge(dead=frozenset({commanding_child.DEAD})).judge([decode(message.body) for message in messages])
    superseded, unexplained = came.pop("superseded", 0), came.pop("unexplained", 0)
    assert unexplained == 0
    assert sum(came.values()) == 1_000
    assert sum(count for what, count in came.items() if what.startswith("ruled")) == len(messages) - 2
    assert judge.failovers > 3
    assert superseded > 0
    refused = {what.removeprefix("refused ") for what in came if what.startswith("refused")}
    assert refused >= {"known_regions", "not_onto_itself", "target_alive", "one_at_a_time", "source_active"}
    assert refused <= {rule.value for rule in Rule}
    assert came["given up"] == 0


async def _child(url: str, seed: int) -> asyncio.subprocess.Process:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, Path(__file__).with_name("commanding_child.py"), url, str(seed), "333"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"ready\n"
    return child
