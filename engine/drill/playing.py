"""Rounds of one scenario on one topology, and what they came to."""

import asyncio
import time
from collections import defaultdict
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from relight.engine.drill.figures import Figures, figures
from relight.engine.drill.ledger import Told
from relight.engine.drill.plan import Fault, Plan, Scenario
from relight.engine.drill.scenarios import link_cut, region_loss, rolling_restart, slow_region
from relight.engine.drill.scene import Means, Scene, Step, staged
from relight.engine.drill.verdict import Promise, verdict


class Report(BaseModel):
    """All that a drill found."""

    model_config = ConfigDict(frozen=True)

    scenario: Scenario
    seed: int
    regions: tuple[str, ...]
    rounds: tuple[Figures, ...]
    promises: tuple[Promise, ...]

    @property
    def kept(self) -> bool:
        return all(promise.held for promise in self.promises)


async def play(plan: Plan, home: Path, means: Means, step: Step) -> Report:
    """Raises `SettingsError`, `TopologyRefused`, `EmbeddedServerError`, `DrillFailed`."""
    async with staged(plan, home, means, step) as scene:
        wiped: defaultdict[str, list[float]] = defaultdict(list)
        rounds = []
        for number in range(1, plan.rounds + 1):
            rounds.append(await play_round(scene, number, wiped))
            step(f"round {number} of {plan.rounds}: {_told(rounds[-1])}")
    return Report(
        scenario=plan.scenario,
        seed=plan.seed,
        regions=scene.topology.names,
        rounds=tuple(rounds),
        promises=tuple(verdict(plan.scenario, rounds)),
    )


async def play_round(scene: Scene, number: int, wiped: defaultdict[str, list[float]]) -> Figures:
    """Load, the fault, rest, figures; `wiped` takes when which region's disk was deleted."""
    since_s, chance = time.monotonic(), scene.plan.chance(number)
    scene.go()
    await asyncio.sleep(scene.plan.warm_s + chance.random())
    fault = await _hit(scene, number, chance.choice(scene.topology.names))
    if fault.wiped:
        wiped[fault.region].append(fault.began_s)
    await asyncio.sleep(1)
    scene.step("coming to rest")
    await scene.rest()
    until_s = time.monotonic()
    digests = await scene.digests()
    assert scene.asking is not None, "somebody asks from the start"
    told = await asyncio.to_thread(Told.read, scene.ledgers)
    return figures(
        fault,
        told,
        scene.stream,
        scene.asking.answers,
        digests,
        since_s=since_s,
        until_s=until_s,
        wiped=wiped,
    )


async def _hit(scene: Scene, number: int, region: str) -> Fault:
    match scene.plan.scenario:
        case Scenario.REGION_LOSS:
            return await region_loss.play(scene, region, wiped=number % 2 == 0)
        case Scenario.DISK_WIPED:
            return await region_loss.play(scene, region, wiped=True, at_once=True)
        case Scenario.LINK_CUT:
            return await link_cut.play(scene, region, list(link_cut.WAYS)[(number - 1) % len(link_cut.WAYS)])
        case Scenario.SLOW_REGION:
            return await slow_region.play(scene, region)
        case Scenario.ROLLING_RESTART:
            return await rolling_restart.play(scene)


def _told(one: Figures) -> str:
    lost, doubled = len(one.acknowledged_lost), len(one.doubled)
    tasks = "-" if one.tasks_last_s is None else f"{one.tasks_last_s:.1f} s"
    return (
        f"{one.region} {one.what}: lost {lost}, doubled {doubled}, log {one.log_stalled_s:.1f} s,"
        f" replicated {one.acknowledged_stalled_s:.1f} s, tasks {tasks} ({one.tasks_held} held),"
        f" differing {len(one.tables_differing)}, {one.took_s:.0f} s"
    )
