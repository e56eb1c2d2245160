"""Every region is stopped in order and started again, one after the other, while its agents go on."""

import time

from relight.engine.drill.plan import Fault
from relight.engine.drill.scene import Scene


async def play(scene: Scene) -> Fault:
    began_s = time.monotonic()
    for region in scene.topology.names:
        scene.step(f"{region} restarts")
        await scene.regions[region].stop()
        await scene.start(region)
        await scene.back(region)
    return Fault(region=region, what="restarted in order", began_s=began_s, ended_s=time.monotonic())
