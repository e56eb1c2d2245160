"""The load drill: real servers under load, restarted and cut off; exit code 1 when a promise is broken."""

import asyncio
import sys

import load
import outage
import rolling
from phased import asked, told
from plan import Plan
from reporting import Report, stepping
from scene import scene

PLAYED = {"load": load.play, "rolling": rolling.play, "outage": outage.play}
OPTIONS = (
    *("seed", "clients", "seconds", "think_s", "beside", "events_per_s", "tenants", "prefill_events"),
    *("closed_clients", "closed_seconds", "away_s", "restarts", "pool_size"),
)


def main() -> int:
    plan, to = asked(Plan(), named="make drill", about=__doc__, options=OPTIONS)
    report = asyncio.run(_play(plan))
    seeded = f"seed {plan.seed}, {plan.apis} API processes, {plan.projectors} projectors, limit 20 on every question"
    return told(report, plan, to, caption=seeded)


async def _play(plan: Plan) -> Report:
    report = Report()
    async with stepping() as step, scene(plan, step) as here:
        for phase in plan.phases:
            await PLAYED[phase](here, report)
    return report


if __name__ == "__main__":
    sys.exit(main())
