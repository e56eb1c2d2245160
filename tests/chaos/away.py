"""NATS away for minutes at a steady rate, PostgreSQL meanwhile; then again with caps so small that they are met."""

import asyncio
import time

from chaos_plan import ChaosPlan
from outages import Outage, gaps, outage, tell_costs, tell_kept
from reporting import Report, Step, s

PHASE = "away"
GROWTH_BYTES = 64 << 20
"""What the publisher's memory may grow by, however long NATS is away."""
CAPPED_BYTES = 4 << 20
CAPPED_EVENTS_PER_S = 2_000
CAPPED_S = 20.0
SLACK = 1.5
SLACK_BYTES = 16 << 20
"""On disk a cap on bodies comes to so many times as much, and the write-ahead log besides."""
MEGABYTE = 1 << 20


async def play(plan: ChaosPlan, report: Report, step: Step) -> None:
    await _long(plan, report, step)
    await _capped(plan, report, step)


async def _long(plan: ChaosPlan, report: Report, step: Step) -> None:
    name = f"NATS away for {plan.away_s:g} s at {plan.events_per_s:,} events/s"
    async with outage(name, events_per_s=plan.events_per_s, step=step, logs=plan.logs) as here:
        await asyncio.sleep(2)
        before, gone = here.samples[-1], time.monotonic()
        await here.nats.kill()
        await _passed(here, step, plan.away_s / 3, "NATS is away")
        await here.postgres.kill()
        await _passed(here, step, plan.away_s / 3, "NATS and PostgreSQL are away")
        await here.postgres.start()
        await _passed(here, step, plan.away_s / 3, "NATS is away, PostgreSQL is back")
        at_return, exposed = here.samples[-1], here.exposed
        await here.nats.start()
        back = time.monotonic()
        step(f"{name}: NATS is back, {exposed:,} events wait")
        took_s = await here.reached(lambda: here.exposed < plan.events_per_s, "the spool is drained")
        recovered = time.monotonic()
        await asyncio.sleep(2)
        await here.end()
        told, found = await here.judged()
        _tell_caps(report, here, before.rss_bytes, gone, back, cap=1 << 30)
        health_events, age_s = at_return.health_events or 0, at_return.health_age_s or 0.0
        report.promise(
            PHASE,
            "/health at the end: events exposed, age of the oldest",
            f"{health_events:,}; {s(age_s)}",
            asked=f">= 0.9 of {exposed:,}; of {plan.away_s:g} s",
            kept=health_events >= 0.9 * exposed and age_s >= 0.9 * plan.away_s,
        )
        due = plan.away_s * plan.events_per_s
        report.promise(
            PHASE, "recorded meanwhile", f"{exposed:,}", asked=f">= 0.9 of {due:,.0f}", kept=exposed >= 0.9 * due
        )
        report.figure(PHASE, "all caught up after; rate", f"{s(took_s)}; {exposed / took_s:,.0f} events/s")
        tell_costs(report, PHASE, "while NATS was away, and until all was caught up", here.costs(gone, recovered))
        # A few hundred calls within seconds in which this process has both cores to itself, if it is lucky.
        tell_costs(report, PHASE, "of these, while it was caught up", here.costs(back, recovered), promised=False)
        in_order = list(told.spooled.values()) == sorted(told.spooled.values())
        report.promise(PHASE, "numbers in the order of recording", "yes" if in_order else "no", asked="", kept=in_order)
        tell_kept(report, PHASE, "afterwards", found)
        report.figures[PHASE] = {"samples": here.said(), "gone": gone, "back": back, "caught_up_s": took_s}


async def _passed(here: Outage, step: Step, seconds: float, what: str) -> None:
    step(f"{what}: {here.exposed:,} events exposed", seconds)
    await asyncio.sleep(seconds)


def _tell_caps(report: Report, here: Outage, rss_bytes: int, gone: float, back: float, *, cap: int) -> None:
    samples = [sample for sample in here.samples if gone <= sample.at < back]
    grown = max(sample.rss_bytes for sample in samples) - rss_bytes
    disk = max(sample.disk_bytes for sample in samples)
    report.promise(
        PHASE,
        f"{here.name}: memory before, growth at most (MiB)",
        f"{rss_bytes / MEGABYTE:,.1f}, {grown / MEGABYTE:,.1f}",
        asked=f"<= {GROWTH_BYTES / MEGABYTE:,.0f}",
        kept=grown <= GROWTH_BYTES,
    )
    most = SLACK * cap + SLACK_BYTES
    report.promise(
        PHASE,
        f"{here.name}: spool files on disk at most, of a cap of (MiB)",
        f"{disk / MEGABYTE:,.1f} of {cap / MEGABYTE:,.0f}",
        asked=f"<= {most / MEGABYTE:,.0f}",
        kept=disk <= most,
    )


async def _capped(plan: ChaosPlan, report: Report, step: Step) -> None:
    seconds = min(CAPPED_S, plan.away_s)
    name = f"a cap of {CAPPED_BYTES / MEGABYTE:g} MiB at {CAPPED_EVENTS_PER_S:,} events/s"
    caps = {"spool_max_bytes": CAPPED_BYTES, "memory_max_events": 2_000}
    async with outage(name, events_per_s=CAPPED_EVENTS_PER_S, step=step, logs=plan.logs, **caps) as here:
        before, gone = here.samples[-1], time.monotonic()
        await here.nats.kill()
        await _passed(here, step, seconds, f"{name}, NATS is away")
        await here.reached(lambda: here.refused, "the cap is reached", within_s=60)
        await here.nats.start()
        back = time.monotonic()
        took_s = await here.reached(lambda: here.exposed < CAPPED_EVENTS_PER_S / 4, "the spool is drained")
        await here.end()
        told, found = await here.judged()
        _tell_caps(report, here, before.rss_bytes, gone, back, cap=CAPPED_BYTES)
        tell_costs(report, PHASE, "at the cap, refusals among them", here.costs(gone, back))
        said = await gaps(here.nats, len(told.refused))
        report.promise(
            PHASE,
            "events refused at the cap; recorder.gap says",
            f"{len(told.refused):,}; {said:,}",
            asked="equal, and > 0",
            kept=said == len(told.refused) > 0,
        )
        report.figure(PHASE, "caught up after", s(took_s))
        tell_kept(report, PHASE, "at the cap", found, also_refused=True)
