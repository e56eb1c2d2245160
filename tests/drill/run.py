"""The load drill: real servers under load, restarted and cut off; exit code 1 when a promise is broken."""

import asyncio
import json
import sys
from argparse import ArgumentParser
from dataclasses import asdict
from pathlib import Path

import load
import outage
import rolling
from plan import PHASES, Plan
from reporting import Report, machine, stepping, tell
from scene import scene

PLAYED = {"load": load.play, "rolling": rolling.play, "outage": outage.play}


def main() -> int:
    plan, to = _asked()
    report = asyncio.run(_play(plan))
    seeded = f"seed {plan.seed}, {plan.apis} API processes, {plan.projectors} projectors, limit 20 on every question"
    tell(report, caption=seeded)
    if to:
        told = {"machine": machine(), "plan": asdict(plan), **report.as_json()}
        to.write_text(json.dumps(told, indent=2) + "\n")
    return 1 if report.broken else 0


def _asked() -> tuple[Plan, Path | None]:
    plan = Plan()
    parser = ArgumentParser(prog="make drill", description=__doc__)
    parser.add_argument("phases", nargs="*", metavar="PHASE", help=f"of {', '.join(PHASES)}; all by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write every figure")
    parser.add_argument("--logs", metavar="FOLDER", help="where to keep what the processes said")
    for name in (
        "seed",
        "clients",
        "seconds",
        "think_s",
        "beside",
        "events_per_s",
        "tenants",
        "prefill_events",
        "closed_clients",
        "closed_seconds",
        "away_s",
        "restarts",
        "pool_size",
    ):
        default = getattr(plan, name)
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"{default} by default"
        )
    given = vars(parser.parse_args())
    to, phases = given.pop("json"), given.pop("phases")
    if unknown := set(phases) - set(PHASES):
        parser.error(f"no phase {', '.join(sorted(unknown))}: choose from {', '.join(PHASES)}")
    return Plan(**given, phases=tuple(phase for phase in PHASES if phase in (phases or PHASES))), to


async def _play(plan: Plan) -> Report:
    report = Report()
    async with stepping() as step, scene(plan, step) as here:
        for phase in plan.phases:
            await PLAYED[phase](here, report)
    return report


if __name__ == "__main__":
    sys.exit(main())
