"""The load drill: real servers under load, restarted and cut off; exit code 1 when a promise is broken."""

import asyncio
import json
import os
import platform
import sys
import time
from argparse import ArgumentParser
from dataclasses import asdict
from pathlib import Path

import load
import outage
import rolling
from plan import PHASES, Plan
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from scene import scene
from verdict import Report, Verdict

PLAYED = {"load": load.play, "rolling": rolling.play, "outage": outage.play}
WIDTH = 160
"""Of the table where it goes to a file or a pipe."""


def main() -> int:
    plan, to = _asked()
    report = asyncio.run(_play(plan))
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    console.print(_table(plan, report))
    if to:
        told = {"machine": _machine(), "plan": asdict(plan), **report.as_json()}
        to.write_text(json.dumps(told, indent=2) + "\n")
    for verdict in report.broken:
        console.print(
            f"[red]broken:[/] {verdict.phase}: {verdict.name}: {verdict.figure}, asked {verdict.asked}", soft_wrap=True
        )
        if verdict.detail:
            console.print(f"  {verdict.detail}", markup=False, highlight=False, soft_wrap=True)
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
    report, console = Report(), Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:

        def step(text: str, seconds: float | None = None) -> None:
            for task in progress.task_ids:
                progress.remove_task(task)
            progress.add_task(text, total=seconds)
            if not console.is_terminal:
                console.print(f"[{time.strftime('%H:%M:%S')}] {text}", markup=False, highlight=False)

        advancing = asyncio.create_task(_advance(progress))
        async with scene(plan, step) as here:
            for phase in plan.phases:
                await PLAYED[phase](here, report)
        advancing.cancel()
    return report


async def _advance(progress: Progress) -> None:
    while True:
        await asyncio.sleep(0.2)
        for task in progress.tasks:
            progress.update(task.id, completed=task.elapsed or 0)


def _table(plan: Plan, report: Report) -> Table:
    seeded = f"seed {plan.seed}, {plan.apis} API processes, {plan.projectors} projectors, limit 20 on every question"
    table = Table(title=_machine(), caption=seeded)
    for heading in ("phase", "what", "found", "promised", ""):
        table.add_column(heading, overflow="fold")
    for verdict in report.verdicts:
        table.add_row(verdict.phase, verdict.name, verdict.figure, verdict.asked, _mark(verdict))
    return table


def _mark(verdict: Verdict) -> str:
    return {True: "[green]kept[/]", False: "[red]BROKEN[/]", None: ""}[verdict.kept]


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main())
