"""`relight drill`."""

import time
from pathlib import Path
from typing import Annotated

import typer

from relight.engine.app import drilling as engine
from relight.engine.cli.output import Json, err, out, print_json, print_table, run
from relight.engine.drill.figures import Figures
from relight.engine.drill.plan import Plan, Scenario
from relight.engine.drill.playing import Report


def drill(
    name: Annotated[Scenario, typer.Argument(help="What is done.", show_default=False)],
    topology: Annotated[
        Path | None, typer.Option("--topology", help="A file of regions on this machine; three of its own without.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long a cut or a slow link lasts.", min=1)] = 10.0,
    seed: Annotated[int, typer.Option(help="Which regions are hit, and when.")] = 1,
    rounds: Annotated[int, typer.Option(help="How often, on the same regions.", min=1)] = 1,
    keep: Annotated[
        Path | None, typer.Option("--keep", help="An empty folder for logs, ledgers and data; else all is deleted.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Lose a region, cut a link, wipe a disk, on real servers of the drill's own and under load; then say what held.

    Exit code 1 when a promise was broken.
    """
    plan = Plan(scenario=name, topology=topology, seconds=seconds, seed=seed, rounds=rounds)
    began_s = time.monotonic()

    def step(text: str) -> None:
        err.print(f"[{time.monotonic() - began_s:6.1f} s] {text}", markup=False, highlight=False, soft_wrap=True)

    report = run(engine.run_drill(plan, step, keep=keep))
    if as_json:
        print_json({**report.model_dump(mode="json"), "kept": report.kept})
    else:
        _tell(report)
    if not report.kept:
        raise typer.Exit(1)


def _tell(report: Report) -> None:
    columns = ("round", "region", "what", "lost", "doubled", "record() s", "log s", "queries s", "isolated s")
    print_table(
        f"{report.scenario}, seed {report.seed}",
        (*columns, "failed over s", "tasks held", "first s", "all s"),
        [(number, *_row(one)) for number, one in enumerate(report.rounds, 1)],
    )
    print_table(
        "What was promised",
        ("promise", "found", ""),
        [(one.promise, one.found, "held" if one.held else "BROKEN") for one in report.promises],
    )
    for one in report.promises:
        if not one.held:
            out.print(f"[red]broken:[/] {one.promise}: {', '.join(one.broken)}", highlight=False, soft_wrap=True)


def _row(one: Figures) -> tuple[object, ...]:
    return (
        one.region,
        one.what,
        len(one.acknowledged_lost),
        len(one.doubled),
        *map(_s, (one.longest_record_s, one.log_stalled_s, one.queries_stalled_s, one.isolated_s, one.failed_over_s)),
        one.tasks_held,
        _s(one.tasks_first_s),
        _s(one.tasks_last_s),
    )


def _s(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f}"
