"""`relight rebuild`."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

import typer

from relight.engine.app import tables as engine
from relight.engine.cli.output import Json, out, print_json, print_table, progress, run, settings
from relight.engine.tables.rebuild import Rebuilt
from relight.engine.tables.refolding import Advanced
from relight.engine.tables.rollback import RolledBack
from relight.projections import catalog

T = TypeVar("T")


def rebuild(
    projections: Annotated[list[str] | None, typer.Argument(help="Which projections; without any, all.")] = None,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Put back the tables that the latest rebuild replaced.")
    ] = False,
    drop_previous: Annotated[
        bool, typer.Option("--drop-previous", help="Drop the tables that the latest rebuild replaced.")
    ] = False,
    accept_difference: Annotated[
        bool, typer.Option("--accept-difference", help="Swap also where the tables differ from the live ones.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fold tables anew from the whole stream, compare them with the live ones, and swap; reads and writes go on."""
    if (rollback or drop_previous) and (projections or accept_difference or (rollback and drop_previous)):
        raise typer.BadParameter("--rollback and --drop-previous each stand alone")
    known = {projection.name for projection in catalog.projections()}
    if unknown := set(projections or ()) - known:
        raise typer.BadParameter(f"no projection {', '.join(sorted(unknown))}; there is {', '.join(sorted(known))}")
    if drop_previous:
        _say_dropped(run(engine.drop_previous_tables(settings())), as_json)
    elif rollback:
        _say(_advancing(lambda advanced: engine.roll_back_tables(settings(), advanced=advanced)), as_json)
    else:
        names = projections or []
        _say(
            _advancing(
                lambda advanced: engine.rebuild_tables(
                    settings(), names, accept_difference=accept_difference, advanced=advanced
                )
            ),
            as_json,
        )


def _advancing(work: Callable[[Advanced], Coroutine[Any, Any, T]]) -> T:
    with progress() as bar:
        task = bar.add_task("events", total=None)
        return run(work(lambda seq, end: bar.update(task, completed=seq, total=end)))


def _say(done: Rebuilt | RolledBack, as_json: bool) -> None:
    if as_json:
        print_json(done)
        return
    what = "rebuilt" if isinstance(done, Rebuilt) else "rolled back"
    out.print(f"{what}: {', '.join(done.projections)}", highlight=False, soft_wrap=True)
    out.print(f"position {done.position}, generation {done.generation}", highlight=False, soft_wrap=True)
    if isinstance(done, Rebuilt):
        out.print(
            f"{done.events} events, {done.events_per_s:,.0f} a second with indexes;"
            f" {done.dead_letters} dead letters, {done.dead_letters_resolved} resolved",
            highlight=False,
            soft_wrap=True,
        )
        print_table(
            f"compared at {done.compared_at}",
            ("table", "sha256", "as before"),
            ((name, sha256, "no" if name in done.differing else "yes") for name, sha256 in done.tables.items()),
        )
    else:
        out.print(f"{done.events} events folded that these tables had missed", highlight=False)
    out.print(
        f"took {done.took_s:.1f} s; in the swap writes waited {done.writes_waited_s * 1_000:.0f} ms and reads"
        f" {done.reads_waited_s * 1_000:.0f} ms",
        highlight=False,
        soft_wrap=True,
    )


def _say_dropped(tables: int, as_json: bool) -> None:
    if as_json:
        print_json({"dropped": tables})
    else:
        out.print(f"dropped: {tables} tables of the previous set", highlight=False)
