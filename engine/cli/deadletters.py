"""`relight deadletter list|show|retry`."""

from typing import Annotated

import typer

from relight.engine.app import connections as engine
from relight.engine.cli.output import Json, fail, out, print_json, print_models, run, settings
from relight.engine.tables import deadletters

app = typer.Typer(help="Messages that could not be folded: list, show, retry.", no_args_is_help=True)


@app.command("list")
def list_(
    resolved: Annotated[bool, typer.Option("--resolved", help="Those that a retry has folded.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the latest first.")] = 100,
    as_json: Json = False,
) -> None:
    """List open dead letters, or those resolved."""
    here = settings()
    found = run(
        engine.with_session(
            here, lambda session: deadletters.list_dead_letters(session, resolved=resolved, limit=limit)
        )
    )
    if as_json:
        print_json(found)
    else:
        print_models(None, found, empty="No dead letters.")


@app.command()
def show(seq: Annotated[int, typer.Argument(help="Its stream sequence.")], as_json: Json = False) -> None:
    """Show what is dead of one message: why, and its exact bytes."""
    found = run(engine.with_session(settings(), lambda session: deadletters.dead_letters_at(session, seq)))
    if not found:
        fail(f"there is no dead letter at sequence {seq}: see `relight deadletter list`")
    if as_json:
        print_json(
            [{**row.model_dump(mode="json"), "body": body.decode(errors="backslashreplace")} for row, body in found]
        )
        return
    for row, body in found:
        for name, value in row.model_dump().items():
            out.print(f"{name:17} {'-' if value is None else value}", highlight=False, markup=False, soft_wrap=True)
        out.print(body.decode(errors="backslashreplace"), highlight=False, markup=False, soft_wrap=True)


@app.command()
def retry(
    seq: Annotated[int | None, typer.Argument(help="Its stream sequence; without it, all that are open.")] = None,
    as_json: Json = False,
) -> None:
    """Fold dead letters again; safe at any time. Exit code 1 when some stay dead."""
    resolved, still_dead = run(
        engine.with_session(settings(), lambda session: deadletters.retry(session, engine.clock(), seq=seq))
    )
    if as_json:
        print_json({"resolved": resolved, "still_dead": still_dead})
    else:
        out.print(f"{resolved} resolved, {still_dead} still dead")
    if still_dead:
        raise typer.Exit(1)
