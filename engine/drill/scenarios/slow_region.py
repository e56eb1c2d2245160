"""What goes in and out of a region comes late: slow is not dead."""

import asyncio
import time

from relight.engine.drill.plan import Fault
from relight.engine.drill.scene import Scene


async def play(scene: Scene, region: str) -> Fault:
    plan = scene.plan
    scene.step(f"{region} is slow for {plan.seconds:g} s: {plan.delay_s:g} s and up to {plan.jitter_s:g} s more a way")
    began_s = time.monotonic()
    scene.links.slow(region, delay_s=plan.delay_s, jitter_s=plan.jitter_s)
    await asyncio.sleep(plan.seconds)
    scene.links.heal()
    return Fault(region=region, what="slow", began_s=began_s, ended_s=time.monotonic())
