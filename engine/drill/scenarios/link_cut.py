"""A region is cut off from all others, both ways or one, and let in again."""

import asyncio
import time

from relight.engine.drill.plan import Fault
from relight.engine.drill.scene import Scene

WAYS = {"both ways": (True, True), "outwards": (True, False), "inwards": (False, True)}


async def play(scene: Scene, region: str, ways: str) -> Fault:
    """`ways`: one of `WAYS`."""
    outwards, inwards = WAYS[ways]
    scene.step(f"{region} is cut off, {ways}, for {scene.plan.seconds:g} s")
    began_s = time.monotonic()
    scene.links.cut_off(region, outwards=outwards, inwards=inwards)
    await asyncio.sleep(scene.plan.seconds)
    scene.step(f"{region} is let in again")
    ended_s = time.monotonic()
    scene.links.heal()
    await scene.back(region)
    return Fault(region=region, what=f"cut off {ways}", began_s=began_s, ended_s=ended_s, cut_off=True)
