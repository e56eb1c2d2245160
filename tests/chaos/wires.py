"""What lies between is at fault: NATS frozen, flapping, its acknowledgements swallowed, its connections half open."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable

from chaos_plan import ChaosPlan
from outages import Outage, outage, tell_costs, tell_kept
from reporting import Report, Step, s

PHASE = "wires"
FLAP_S = 1.0


async def play(plan: ChaosPlan, report: Report, step: Step) -> None:
    faults: dict[str, Callable[[Outage, float], Awaitable[None]]] = {
        "NATS frozen": _frozen,
        "NATS flapping, 1 s up, 1 s down": _flapping,
        "acknowledgements swallowed": _deaf,
        "connections half open": _half_open,
    }
    times: dict[str, tuple[float, float]] = {}
    through = outage("wires", events_per_s=plan.events_per_s, step=step, through_proxy=True, logs=plan.logs)
    async with through as here:
        for name, fault in faults.items():
            step(f"{name} for {plan.wires_s:g} s", plan.wires_s)
            began = time.monotonic()
            await fault(here, plan.wires_s)
            over, exposed = time.monotonic(), here.exposed
            took_s = await here.reached(lambda: here.exposed < plan.events_per_s / 4, "the spool is drained")
            times[name] = (began, time.monotonic())
            figure = f"{exposed:,}; {s(took_s)}"
            report.figure(PHASE, f"{name} for {over - began:,.0f} s: exposed at its end; drained after", figure)
            await asyncio.sleep(1)
        await here.end()
        _, found = await here.judged()
    for name, (began, over) in times.items():
        tell_costs(report, PHASE, f"with {name}", here.costs(began, over))
    tell_kept(report, PHASE, "after all of them", found)


async def _frozen(here: Outage, seconds: float) -> None:
    os.kill(here.nats.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        os.kill(here.nats.pid, signal.SIGCONT)


async def _flapping(here: Outage, seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        await here.nats.kill()
        await asyncio.sleep(FLAP_S)
        await here.nats.start()
        await asyncio.sleep(FLAP_S)


async def _deaf(here: Outage, seconds: float) -> None:
    assert here.proxy is not None
    here.proxy.deaf = True
    await asyncio.sleep(seconds)
    here.proxy.deaf = False
    here.proxy.cut()


async def _half_open(here: Outage, seconds: float) -> None:
    """Nothing tells the client but its own patience: pings every 5 s, two of which may be missed."""
    assert here.proxy is not None
    here.proxy.hang()
    await asyncio.sleep(seconds)
