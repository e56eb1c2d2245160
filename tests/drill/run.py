"""The load drill: real servers under load, restarted and cut off; exit code 1 when a promise is broken.

`regions` instead: `relight drill region-loss`, with the options that follow.
"""

import asyncio
import subprocess
import sys
from pathlib import Path

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


REGIONS = "regions"


def main() -> int:
    if sys.argv[1:2] == [REGIONS]:
        return subprocess.run(
            (str(Path(sys.executable).with_name("relight")), "drill", "region-loss", *sys.argv[2:]), check=False
        ).returncode
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
