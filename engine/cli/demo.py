"""`relight demo`."""

from typing import TYPE_CHECKING, Annotated

import typer

from relight.engine.cli.output import Json, out, print_json, progress, run

if TYPE_CHECKING:
    from relight.engine.demo.report import Report

HOURS = 24


def demo(
    seed: Annotated[int, typer.Option(help="Another seed is another day, the same seed the same one.")] = 1,
    as_json: Json = False,
) -> None:
    """Play a scripted day of a fleet through real servers, and show what is left of it.

    NATS and PostgreSQL are started in a temporary folder and removed again; servers of yours are not touched, whatever
    RELIGHT_* says. Exit code 1 when a table is empty, or PostgreSQL and the stream do not agree.
    """
    from relight.engine.demo.show import show  # no other command needs what the demonstration does

    report = run(_play(seed))
    if as_json:
        print_json(report)
    else:
        show(report, out)
    if report.failures:
        raise typer.Exit(1)


async def _play(seed: int) -> "Report":
    from relight.engine.demo.report import report_on
    from relight.engine.demo.run import scripted_day

    with progress() as bar:
        task = bar.add_task("playing a scripted day, hour", total=HOURS)
        async with scripted_day(seed, progressed=lambda hours: bar.update(task, completed=int(hours))) as day:
            return await report_on(day)
