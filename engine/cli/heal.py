"""`relight heal`."""

from typing import Annotated

import typer

from relight.engine.app import healing as engine
from relight.engine.cli.output import Json, err, out, print_json, print_table, run, settings
from relight.engine.healing.healer import Round


def heal(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look; nobody is asked.")] = False,
    as_json: Json = False,
) -> None:
    """Look the stream through, and have what it lost published again from spools and archive; exit code 1 where
    something is left."""
    done = run(engine.heal(settings(), dry_run=dry_run))
    if as_json:
        print_json(
            {
                "missing": [_plain(loss.publisher, loss.first_pseq, loss.last_pseq) for loss in done.missing],
                "healed": [
                    {
                        **_plain(fact.publisher, fact.first_pseq, fact.first_pseq + fact.events - 1),
                        "source": fact.source,
                    }
                    for fact in done.healed
                ],
                "left": [
                    {
                        **_plain(loss.publisher, loss.first_pseq, loss.last_pseq),
                        "since": loss.noticed_at.isoformat(),
                        "asked": loss.asked,
                        "lost": loss.lost,
                    }
                    for loss in done.left
                ],
                "archive_failure": done.archive_failure,
            }
        )
    else:
        _show(done, dry_run=dry_run)
    if done.left:
        raise typer.Exit(1)


def _plain(publisher: str, first: int, last: int) -> dict[str, object]:
    return {"publisher": publisher, "first_pseq": first, "last_pseq": last}


def _show(done: Round, *, dry_run: bool) -> None:
    missing = sum(loss.events for loss in done.missing)
    healed = sum(fact.events for fact in done.healed)
    out.print(f"{missing} events were missing, {healed} were healed")
    if done.healed:
        rows = [(fact.publisher, fact.first_pseq, fact.events, fact.source) for fact in done.healed]
        print_table("Healed", ("publisher", "first number", "events", "from"), rows)
    if done.left:
        left = [(loss.publisher, loss.first_pseq, loss.events, loss.noticed_at, loss.asked) for loss in done.left]
        print_table("Left", ("publisher", "first number", "events", "missing since", "asked for"), left)
    if done.archive_failure is not None:
        err.print(f"The archive could not be asked: {done.archive_failure}", markup=False, soft_wrap=True)
    if done.left and not dry_run:
        out.print(
            "What is left comes once whoever recorded it runs again, or from an archive (RELIGHT_ARCHIVE);"
            " what will never come can be declared lost.",
            soft_wrap=True,
        )
