"""Chaos: servers and processes are killed, frozen, cut off and filled up; exit code 1 when a promise was broken."""

import asyncio
import sys

import away
import disks
import kills
import wires
from chaos_plan import ChaosPlan
from killing import NotAtRest
from phased import asked, told
from reporting import Report, stepping

PLAYED = {"kills": kills.play, "away": away.play, "wires": wires.play, "disk": disks.play}
OPTIONS = ("seed", "rounds", "scene_rounds", "check_rounds", "moment_s", "away_s", "events_per_s", "wires_s")


def main() -> int:
    plan, to = asked(ChaosPlan(), named="make chaos", about=__doc__, options=OPTIONS)
    return told(asyncio.run(_play(plan)), plan, to, caption=f"seed {plan.seed}")


async def _play(plan: ChaosPlan) -> Report:
    report = Report()
    async with stepping() as step:
        for phase in plan.phases:
            try:
                await PLAYED[phase](plan, report, step)
            except NotAtRest as error:
                report.promise(phase, "came to rest", str(error), asked="in time", kept=False)
    return report


if __name__ == "__main__":
    sys.exit(main())
