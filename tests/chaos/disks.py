"""A full disk under the spool, and one under NATS' store: what is said, what is refused and counted, what recovers."""

import asyncio
import time
from collections.abc import Callable

from chaos_plan import ChaosPlan
from mounts import resize, why_not
from outages import Outage, gaps, outage, tell_costs, tell_kept
from reporting import Report, Step, s

PHASE = "disk"
EVENTS_PER_S = 500
"""At least: a disk is to be full within seconds."""
SPOOL_MB, STORE_MB, ROOMY_MB = 6, 12, 256
MEMORY_EVENTS = 1_000
FULL_WITHIN_S = 90.0
RECOVERS_S = 10.0
"""How long it is given to recover by itself, at most."""


async def play(plan: ChaosPlan, report: Report, step: Step) -> None:
    if (reason := await asyncio.to_thread(why_not)) is not None:
        report.figure(PHASE, "skipped", reason)
        return
    await _spool_full(plan, report, step)
    await _store_full(plan, report, step)


async def _spool_full(plan: ChaosPlan, report: Report, step: Step) -> None:
    name = f"the spool's disk of {SPOOL_MB} MiB full"
    disks = {"spool": SPOOL_MB}
    async with outage(
        name, events_per_s=_rate(plan), step=step, logs=plan.logs, disks=disks, memory_max_events=MEMORY_EVENTS
    ) as here:
        began = time.monotonic()
        await here.nats.kill()
        step(f"{name}: NATS is away until it is full")
        full_s = await here.reached(lambda: here.refused, "events are refused", within_s=FULL_WITHIN_S)
        report.promise(
            PHASE, f"{name}: the recorder says", here.failure, asked="that it is full", kept="full" in here.failure
        )
        await here.nats.start()
        alone = await _recovers(lambda: not here.failure, min(RECOVERS_S, plan.wires_s))
        report.figure(PHASE, f"{name}: filled in; with NATS back and no more room", f"{s(full_s)}; {alone}")
        resize(here.folder / "spool", ROOMY_MB)
        took_s = await here.reached(lambda: not here.failure, "the spool is written again")
        report.figure(PHASE, f"{name}: written again after there was room", s(took_s))
        await here.end()
        await _tell(report, here, name, began)


def _rate(plan: ChaosPlan) -> int:
    return max(EVENTS_PER_S, plan.events_per_s)


async def _recovers(condition: Callable[[], bool], within_s: float) -> str:
    began = time.monotonic()
    while time.monotonic() - began < within_s:
        if condition():
            return f"recovered after {s(time.monotonic() - began)}"
        await asyncio.sleep(0.05)
    return f"not within {within_s:g} s"


async def _store_full(plan: ChaosPlan, report: Report, step: Step) -> None:
    name = f"NATS' disk of {STORE_MB} MiB full"
    disks = {"servers/nats/store": STORE_MB}
    async with outage(name, events_per_s=_rate(plan), step=step, logs=plan.logs, disks=disks) as here:
        began = time.monotonic()
        step(f"{name}: recording until it is")
        await here.reached(lambda: here.failure and here.exposed > _rate(plan), "NATS is full", within_s=FULL_WITHIN_S)
        report.promise(PHASE, f"{name}: the recorder says", here.failure, asked="something", kept=bool(here.failure))
        await asyncio.sleep(2)
        exposed = here.exposed
        resize(here.folder / "servers/nats/store", ROOMY_MB)
        # One success says nothing: what the server took before it was full it calls duplicates, and that is an answer.
        alone = await _recovers(lambda: here.exposed < _rate(plan), min(RECOVERS_S, plan.wires_s))
        report.figure(PHASE, f"{name}: exposed; with room again, and no restart", f"{exposed:,}; {alone}")
        if here.exposed >= _rate(plan):
            step(f"{name}: NATS is started again")
            await here.nats.stop()
            await here.nats.start()
        took_s = await here.reached(lambda: here.exposed < _rate(plan), "the spool is drained")
        report.figure(PHASE, f"{name}: drained after", s(took_s))
        await here.end()
        await _tell(report, here, name, began)


async def _tell(report: Report, here: Outage, name: str, began: float) -> None:
    told, found = await here.judged()
    said = await gaps(here.nats, len(told.refused))
    report.promise(
        PHASE,
        f"{name}: events refused; recorder.gap says",
        f"{len(told.refused):,}; {said:,}",
        asked="equal",
        kept=said == len(told.refused),
    )
    tell_costs(report, PHASE, f"with {name}", here.costs(began, time.monotonic()))
    tell_kept(report, PHASE, name, found, also_refused=True)
