"""Of several regions one heals: the others stand by, and are no burden."""

import asyncio
from collections.abc import Sequence

import stack

from relight.engine.healing.watching import Healing, watch
from relight.engine.log.topology import Headers, connect
from relight.engine.recorder.heal_messages import HERE
from relight.engine.tables.connecting import connect_session
from relight.events.base import Event

MANY = 1_000


async def test_a_region_whose_turn_it_is_not_waits_although_a_recorder_says_that_it_is_there(database: str) -> None:
    asked = 0

    def turn() -> bool:
        nonlocal asked
        asked += 1
        if asked > MANY:
            raise RuntimeError("asked again and again")  # or the loop would never come back
        return False

    async def say(events: Sequence[Event]) -> None:
        raise AssertionError("nothing is to be healed here")

    async with stack.nats_server(sync_always=False) as nats, stack.connected(nats) as client:
        healing = Healing(
            open_client=lambda: connect(nats.url, name="relight test", headers=Headers.MESSAGE_ID),
            open_session=lambda: connect_session(database, role=stack.ROLE),
            say=say,
            look_every_s=0.02,
            turn=turn,
        )
        watching = asyncio.create_task(watch(healing))
        await stack.until(lambda: asked > 2, "it is asked whose turn it is")
        await client.publish(HERE, b"p-test")
        await client.flush()
        seen = asked
        await stack.until(lambda: asked > seen + 3, "it is asked again")
        assert asked < MANY
        watching.cancel()
        await asyncio.wait([watching])
