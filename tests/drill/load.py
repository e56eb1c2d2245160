"""Five hundred clients ask while events arrive: how long answers take, beside the bare pool in the same moments."""

import asyncio
import os
from typing import Any

from cores import Cores
from plan import SEED_API_MS
from reporting import Report, ms
from scene import Scene

PHASE = "load"


async def play(scene: Scene, report: Report) -> None:
    plan = scene.plan
    scene.publish(plan.events_per_s)
    scene.step(f"{plan.clients} clients for {plan.seconds:g} s, {plan.events_per_s:,} events/s", plan.seconds)
    before = scene.publisher.latest
    cores = Cores(scene)
    scene.begin_asking(clients=plan.clients, warm_up_s=plan.warm_up_s)
    await asyncio.sleep(plan.seconds)
    used = cores.used()
    met = await scene.end_asking()
    after = scene.publisher.latest
    recorded = after["recorded"] - before["recorded"]
    report.figures[PHASE] = met | {"recorded": recorded, "cores": used}
    _tell(report, scene, met)
    shares = ", ".join(f"{who} {share:.2f}" for who, share in used.items())
    report.figure(PHASE, "cores used, of those that there are", f"{shares}; of {os.cpu_count()}")
    per_s = recorded / (after["at"] - before["at"])
    report.promise(
        PHASE,
        "events recorded meanwhile",
        f"{per_s:,.0f}/s",
        asked=f"{plan.events_per_s:,}/s",
        kept=per_s > 0.95 * plan.events_per_s,
    )
    await _saturate(scene, report)
    scene.step("waiting until all is in the tables")
    scene.publish(0)
    fresh = sorted(sample["projected_ms"] for sample in await scene.samples() if "projected_ms" in sample)
    report.figures["fresh_ms"] = fresh
    if fresh:
        at = [fresh[min(len(fresh) - 1, int(len(fresh) * fraction))] for fraction in (0.5, 0.99)]
        report.figure(PHASE, "recorded until in the tables, p50 and p99 under this load", f"{ms(at[0])}, {ms(at[1])}")
    await scene.at_rest()


def _tell(report: Report, scene: Scene, met: dict[str, Any]) -> None:
    http, bare = met["sides"]["http"], met["sides"]["bare"]
    how = f"{scene.plan.clients} clients on connections of their own, thinking {scene.plan.think_s:g} s on average"
    report.figure(PHASE, "questions over HTTP", f"{http['asked']:,}, {http['per_s']:,.0f}/s", how)
    report.promise(
        PHASE, "failed over HTTP", f"{http['failed']:,}", asked="0", kept=not http["failed"], detail=_why(met)
    )
    report.figure(PHASE, "failed in the bare pool", f"{bare['failed']:,} of {bare['asked']:,}")
    for name in ("p50_ms", "p90_ms", "p99_ms"):
        ratio = f"{http[name] / bare[name]:.1f}" if http[name] and bare[name] else "-"
        report.figure(
            PHASE,
            f"{name[:3]} over HTTP; the same query as SQL in a bare pool; ratio",
            f"{ms(http[name])}; {ms(bare[name])}; {ratio}",
        )
    low, high = SEED_API_MS
    for name in ("p50_ms", "p99_ms"):
        if http[name] is not None:
            said = "below" if http[name] < low else "within" if http[name] <= high else "ABOVE"
            report.figure(
                PHASE,
                f"the seed's {low:g}-{high:g} ms at the API, as {name[:3]} from asking to the whole answer read",
                f"{ms(http[name])}: {said}",
            )


async def _saturate(scene: Scene, report: Report) -> None:
    """No thinking: as much as goes, one side after the other."""
    plan = scene.plan
    for side in ("http", "bare"):
        scene.step(f"{plan.closed_clients} clients that do not think, {side}", plan.closed_seconds)
        scene.begin_asking(clients=plan.closed_clients, warm_up_s=min(1, plan.closed_seconds / 5), side=side)
        await asyncio.sleep(plan.closed_seconds)
        met = await scene.end_asking()
        report.figures[f"saturated_{side}"] = met
        found = met["sides"][side]
        report.figure(
            PHASE,
            f"{plan.closed_clients} clients that do not think, {side}: answers, p50, p99",
            f"{found['per_s']:,.0f}/s, {ms(found['p50_ms'])}, {ms(found['p99_ms'])}",
        )
        if side == "http":
            failed = found["failed"]
            report.promise(PHASE, "failed while saturated", f"{failed:,}", asked="0", kept=not failed, detail=_why(met))


def _why(met: dict[str, Any]) -> str:
    return "; ".join(failure["cause"] for failure in met["failures"] if failure["side"] == "http")[:600]
