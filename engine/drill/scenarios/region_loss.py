"""Everything in a region is killed at one moment; others take over; it returns, with its disk or without."""

import asyncio
import time

from relight.engine.drill.plan import RTO_TASKS_S, Fault
from relight.engine.drill.scene import Scene
from relight.events.failover import FailoverCompleted

TAKEN_OVER_S = RTO_TASKS_S


async def play(scene: Scene, region: str, *, wiped: bool, at_once: bool = False) -> Fault:
    """`at_once`: it starts again before anybody could take over. Raises `EmbeddedServerError`, `DrillFailed`."""
    scene.step(f"{region} is lost{', with its disk' if wiped else ''}")
    began_s = await scene.lose(region)
    if not at_once:
        await scene.until(
            lambda stream: (
                bool(stream.since(began_s, FailoverCompleted.TYPE))
                and all(stream.completed_at(task) is not None for task in stream.held_by(region, began_s))
            ),
            within_s=TAKEN_OVER_S,
        )
    if wiped:
        await asyncio.to_thread(scene.regions[region].wipe)
    scene.step(f"{region} starts again")
    await scene.start(region)
    ended_s = time.monotonic()
    await scene.load(region)
    await scene.back(region)
    what = f"killed{', disk deleted' if wiped else ''}{', started at once' if at_once else ''}"
    return Fault(region=region, what=what, began_s=began_s, ended_s=ended_s, wiped=wiped, lost=True)
