"""Rulings on a fleet's routing, on a real server: rules and change are one, and everybody follows what was ruled."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import stack

from relight.engine.errors import FailoverRefused
from relight.engine.policies.failover_commands import Declare, Life, Rule, Sight
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.commands import FailoverCommands
from relight.engine.regions.routing import RoutingTable
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
    sights: dict[str, Sight] = field(default_factory=lambda: dict(ALIVE))

    async def here(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return await asyncio.wrap_future(self.recorder.in_loop(coroutine))


@asynccontextmanager
async def scene(fleet: str = "agents", *, declared: Declare | None = FLEET) -> AsyncIterator[Scene]:
    async with stack.nats_server(sync_always=False) as nats, stack.connected(nats):
        async with Recorder(stack.options(nats, tenant="-")) as recorder:
            made = Scene(recorder, FailoverCommands(recorder, fleet))
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
