"""Guarded calls follow the fleet's routing: what lies in a region that is switched off is passed over, and says why."""

from typing import Any

import pytest
import stack
from anthropic import AsyncAnthropic, DefaultAsyncHttpxClient
from test_failover_commands import BY, Scene, scene

from relight.engine.errors import CircuitOpen
from relight.engine.fake.server import FakeAnthropic, fake_anthropic_thread
from relight.engine.guard.breakers.breakers import Breakers
from relight.engine.guard.guarded import guarded
from relight.engine.guard.routes.fallback import Fallback
from relight.engine.guard.routes.regions import follow_routing
from relight.engine.policies.failover_commands import Complete, Life, Sight
from relight.engine.regions.routing import RoutingTable
from relight.events.failover import Manner

ASK: dict[str, Any] = {
    "model": "claude-opus-4-8",
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "hello"}],
}


def client(server: FakeAnthropic) -> AsyncAnthropic:
    return AsyncAnthropic(
        api_key="k", base_url=server.url, max_retries=0, http_client=DefaultAsyncHttpxClient(verify=False)
    )


async def moved(here: Scene, table: RoutingTable) -> None:
    """eu is switched off, us stands in."""
    ruled = await here.commands.start("eu", to="us", manner=Manner.FORCED, **BY)
    assert ruled.failover is not None
    here.sights["us"] = Sight(life=Life.ALIVE, ready_for=ruled.failover)
    await here.commands.rule(Complete(failover=ruled.failover, reason="us has caught up"))
    await stack.until(lambda: table.is_off("eu"), "the table hears of it")


async def test_calls_to_a_region_that_is_switched_off_go_to_the_fallback_and_come_back_with_it() -> None:
    with fake_anthropic_thread() as eu, fake_anthropic_thread() as us:
        async with scene() as here:
            table = RoutingTable(here.recorder, "agents")
            following = here.recorder.in_loop(table.run())
            follow_routing(Breakers.beside(here.recorder), table)
            claude = guarded(client(eu), here.recorder, region="eu", fallbacks=[Fallback(client(us), region="us")])
            alone = guarded(client(eu), here.recorder, region="eu")
            await claude.messages.create(**ASK)
            assert (len(eu.requests), len(us.requests)) == (1, 0)

            await moved(here, table)
            await claude.messages.create(**ASK)
            assert (len(eu.requests), len(us.requests)) == (1, 1)
            with pytest.raises(CircuitOpen, match=r"region eu is switched off since .*: us stands in"):
                await alone.messages.create(**ASK)
            [health] = Breakers.beside(here.recorder).health().breakers
            assert health.reason.startswith("region eu is switched off")

            await here.commands.back("eu", **BY)
            await stack.until(lambda: table.is_active("eu"), "the table hears that it is back")
            await alone.messages.create(**ASK)
            await claude.messages.create(**ASK)
            assert (len(eu.requests), len(us.requests)) == (3, 1)
            following.cancel()


async def test_a_region_that_drains_still_answers_and_what_is_guarded_later_knows_what_is_off() -> None:
    with fake_anthropic_thread() as eu:
        async with scene() as here:
            table = RoutingTable(here.recorder, "agents")
            following = here.recorder.in_loop(table.run())
            follow_routing(Breakers.beside(here.recorder), table)
            await here.commands.start("eu", to="us", manner=Manner.GRACEFUL, **BY)
            await stack.until(lambda: table.draining == ("eu",), "the table hears of it")
            await guarded(client(eu), here.recorder, region="eu").messages.create(**ASK)
            await here.commands.abort(**BY)
            await stack.until(lambda: table.active == ("eu", "us", "ap"), "the table hears that it stays")
            await moved(here, table)
            with pytest.raises(CircuitOpen, match="switched off"):
                await guarded(client(eu), here.recorder, region="eu").messages.create(
                    **{**ASK, "model": "claude-haiku-4-5"}
                )
            following.cancel()
