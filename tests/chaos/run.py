"""Chaos: servers and processes are killed, frozen, cut off and filled up; exit code 1 when a promise was broken."""

import asyncio
import json
import sys
from argparse import ArgumentParser
from dataclasses import asdict
from pathlib import Path

import away
import disks
import kills
import wires
from chaos_plan import PHASES, ChaosPlan
from killing import NotAtRest
from reporting import Report, machine, stepping, tell

PLAYED = {"kills": kills.play, "away": away.play, "wires": wires.play, "disk": disks.play}
OPTIONS = ("seed", "rounds", "scene_rounds", "check_rounds", "away_s", "events_per_s", "wires_s")


def main() -> int:
    plan, to = _asked()
    report = asyncio.run(_play(plan))
    tell(report, caption=f"seed {plan.seed}")
    if to:
        told = {"machine": machine(), "plan": asdict(plan), **report.as_json()}
        to.write_text(json.dumps(told, indent=2) + "\n")
    return 1 if report.broken else 0


def _asked() -> tuple[ChaosPlan, Path | None]:
    plan = ChaosPlan()
    parser = ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("phases", nargs="*", metavar="PHASE", help=f"of {', '.join(PHASES)}; all by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write every figure")
    parser.add_argument("--logs", metavar="FOLDER", help="where to keep what the processes said")
    for name in OPTIONS:
        default = getattr(plan, name)
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"{default} by default"
        )
    given = vars(parser.parse_args())
    to, phases = given.pop("json"), given.pop("phases")
    if unknown := set(phases) - set(PHASES):
        parser.error(f"no phase {', '.join(sorted(unknown))}: choose from {', '.join(PHASES)}")
    return ChaosPlan(**given, phases=tuple(phase for phase in PHASES if phase in (phases or PHASES))), to


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
