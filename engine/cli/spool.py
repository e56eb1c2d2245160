"""`relight spool list|drain|retire`."""

from collections.abc import Sequence
from typing import Annotated

import typer

from relight.engine.app import spools as engine
from relight.engine.cli.output import Json, err, out, print_json, print_table, progress, run, settings
from relight.engine.spool.listing import ListedSpool

app = typer.Typer(help="What is recorded on this machine: list, drain, retire.", no_args_is_help=True)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List every spool of this home, and what of it the stream does not have; no server is needed."""
    found = engine.spools_here(settings())
    if as_json:
        print_json(found)
        return
    _print(found)
    for spool in found:
        if spool.trouble is not None:
            out.print(f"{spool.file}: {spool.trouble}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def drain(as_json: Json = False) -> None:
    """Drain the spools that no live process holds; exit code 1 when something of them is left."""
    here = settings()
    waiting = sum(spool.events for spool in engine.spools_here(here))
    with progress() as bar:
        task = bar.add_task("draining", total=waiting)
        left = run(engine.drain_spools(here, advanced=lambda events: bar.advance(task, events)))
    if as_json:
        print_json(left)
    elif left:
        _print(left)
    else:
        out.print("Nothing is left.")
    if left:
        err.print(f"{len(left)} spools still hold something: see why with `relight spool list`", highlight=False)
        raise typer.Exit(1)


@app.command()
def retire(
    spool: Annotated[str, typer.Argument(help="Its file's name, or a publisher.", show_default=False)],
    reason: Annotated[str, typer.Option(help="Why; recorded with each loss.", show_default=False)],
    decided_by: Annotated[str, typer.Option(help="Who decides it; recorded with each loss.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Drain a spool, record as lost what is nowhere any more, and move its file to `retired/`; nothing is deleted."""
    here = settings()
    with progress() as bar:
        task = bar.add_task("draining", total=None)
        done = run(
            engine.retire_spools(
                here, spool, reason=reason, decided_by=decided_by, advanced=lambda events: bar.advance(task, events)
            )
        )
    if as_json:
        print_json(vars(done))
        return
    for publisher, runs in done.lost.items():
        out.print(f"recorded as lost: {_said(runs)} of {publisher}", highlight=False, soft_wrap=True)
    for publisher, pseq in done.tail_in_doubt_after.items():
        out.print(
            f"tail in doubt: whether {publisher} wrote anything after number {pseq}, nobody can know",
            highlight=False,
            soft_wrap=True,
        )
    for file in done.files:
        out.print(f"moved to {file}", highlight=False, soft_wrap=True)


def _print(spools: list[ListedSpool]) -> None:
    if not spools:
        out.print("There are no spools.")
        return
    columns = ("file", "state", "publisher", "events", "bytes", "oldest", "newest", "on disk", "unreadable")
    print_table(
        None,
        columns,
        (
            (
                spool.file,
                spool.state.value,
                spool.publisher,
                spool.events,
                spool.bytes,
                spool.oldest,
                spool.newest,
                spool.disk_bytes,
                _said(spool.unreadable) if spool.unreadable else None,
            )
            for spool in spools
        ),
    )


def _said(runs: Sequence[tuple[int, int]]) -> str:
    """Numbers as people write them: 3, 5-9."""
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
