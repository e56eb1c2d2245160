"""`relight doctor`."""

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from relight.engine.app import looking as engine
from relight.engine.cli.output import Json, out, print_json, progress, run
from relight.engine.doctor.examine import STEPS
from relight.engine.doctor.models import Outcome, Report

STYLES = {Outcome.OK: "green", Outcome.WARN: "yellow", Outcome.FAIL: "red"}


def doctor(
    strict: Annotated[bool, typer.Option("--strict", help="Take warnings for failures.")] = False,
    as_json: Json = False,
) -> None:
    """Use every setting once for real, say what is wrong and what to do, and leave nothing behind.

    Exit code 1 when a check failed or could not be made (with --strict, also when one warns).
    """
    report = run(_examined())
    if as_json:
        print_json(
            {
                "percent": report.percent,
                "applicable": report.applicable,
                **{outcome.value: report.count(outcome) for outcome in Outcome},
                "checks": report.results,
                "settings": report.settings,
            }
        )
    else:
        _show(report)
    if not report.passes(strict=strict):
        raise typer.Exit(1)


async def _examined() -> Report:
    with progress() as bar:
        task = bar.add_task("", total=len(STEPS))
        return await engine.examine_installation(
            began=lambda step: bar.update(task, description=f"looking at {step.name}"),
            ended=lambda _: bar.advance(task),
        )


def _show(report: Report) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "check", "done", "found"):
        table.add_column(column, overflow="fold")
    for result in report.results:
        outcome = Text(result.outcome, style=STYLES.get(result.outcome, "dim"))
        table.add_row(outcome, Text(result.check), Text(result.did, style="dim"), Text(result.found))
    out.print(table)
    for result in report.results:
        if result.advice is not None:
            out.print(f"{result.check}: {result.advice}", highlight=False, markup=False, soft_wrap=True)
    out.print(f"{report.count(Outcome.OK)} of {report.applicable} checks are ok: {report.percent} %", highlight=False)
