"""Every process restarted three times and all projections rebuilt, under load: nobody may notice."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import guarantees
import isolation
from plan import SWAP_WITHIN_S
from reporting import Report, ms, s
from scene import Scene

PHASE = "rolling"


async def play(scene: Scene, report: Report) -> None:
    plan = scene.plan
    scene.publish(plan.events_per_s)
    scene.begin_asking(clients=plan.clients, warm_up_s=plan.warm_up_s)
    await asyncio.sleep(plan.warm_up_s)
    rebuilt: dict[str, object] = {}
    seconds = []
    for number in range(1, plan.restarts + 1):
        began = time.monotonic()
        rebuilding = None
        if number == min(2, plan.restarts):
            scene.step("rebuilding all projections, and restarting the API meanwhile")
            rebuilding = asyncio.create_task(scene.fleet.command("rebuild"))
        else:
            scene.step(f"rolling restart {number} of {plan.restarts}")
        for served in scene.fleet.of("api"):
            await scene.fleet.roll(served)
        if rebuilding is not None:
            rebuilt = await rebuilding
            scene.step(f"rolling restart {number} of {plan.restarts}: projectors")
        for served in scene.fleet.of("projector"):
            await scene.fleet.roll(served)
        seconds.append(time.monotonic() - began)
    await asyncio.sleep(plan.warm_up_s)
    met = await scene.end_asking()
    scene.step("checking what is left of it")
    await scene.at_rest()
    report.figures[PHASE] = met | {"restarts_s": seconds, "rebuild": rebuilt}
    _tell(scene, report, met, rebuilt)
    await isolation.check(scene, report, PHASE)
    await guarantees.check(scene, report, PHASE)


def _tell(scene: Scene, report: Report, met: dict[str, Any], rebuilt: dict[str, object]) -> None:
    http = met["sides"]["http"]
    causes = "; ".join(failure["cause"] for failure in met["failures"] if failure["side"] == "http")
    report.promise(
        PHASE,
        f"failed over HTTP in {scene.plan.restarts} rolling restarts of every process and a rebuild",
        f"{http['failed']:,} of {http['asked']:,}",
        asked="0",
        kept=not http["failed"],
        detail=causes[:600],
    )
    report.figure(
        PHASE,
        "p50, p99 and longest over HTTP meanwhile",
        ", ".join(map(ms, (http["p50_ms"], http["p99_ms"], http["max_ms"]))),
    )
    report.promise(
        PHASE,
        "time in which no API server was ready",
        s(met["none_ready_s"]),
        asked="none",
        kept=met["none_ready_s"] == 0,
    )
    out_of_order = [ended for ended in scene.fleet.ended if ended.code != 0]
    report.promise(
        PHASE,
        "processes that ended in order by SIGTERM",
        f"{len(scene.fleet.ended) - len(out_of_order)} of {len(scene.fleet.ended)}",
        asked="all",
        kept=not out_of_order,
        detail="; ".join(f"{ended.name}: {ended.code} {ended.said}" for ended in out_of_order)[:600],
    )
    swap_s = swap_time(rebuilt)
    report.promise(
        PHASE,
        "swap of the rebuilt tables: the longer that readers or writers waited",
        s(swap_s),
        asked=f"<= {SWAP_WITHIN_S:g} s",
        kept=swap_s is not None and swap_s <= SWAP_WITHIN_S,
        detail=f"rebuild said {rebuilt}",
    )


def swap_time(document: Mapping[str, object]) -> float | None:
    """How long readers or writers had to wait, whichever is longer; None where the rebuild does not say."""
    waits = [document.get(name) for name in ("reads_waited_s", "writes_waited_s")]
    return max((wait for wait in waits if isinstance(wait, int | float)), default=None)
