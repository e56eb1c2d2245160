"""`relight archive key list|rotate` and `relight archive witness`."""

from typing import Annotated

import typer

from relight.engine.app import archive_keys as engine
from relight.engine.cli.output import Json, err, out, print_json, print_models, run, settings

Where = Annotated[str | None, typer.Option("--archive", help="Which archive (RELIGHT_ARCHIVE).")]

key = typer.Typer(help="Keys that seal the archive: list, rotate.", no_args_is_help=True)


@key.command("list")
def list_(archive: Where = None, as_json: Json = False) -> None:
    """List the archive's keys: which one seals, which ones did, and which is here."""
    found = run(engine.list_keys(settings(), where=archive))
    if as_json:
        print_json(found)
    else:
        print_models(None, found, empty="no keys")


@key.command()
def rotate(
    delete_old: Annotated[
        bool, typer.Option("--delete-old", help="Delete the old private key instead of keeping it beside the new one.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a new key, endorsed by the old one. It seals the next segment, and from there on the old one seals none."""
    rotated = run(engine.rotate_archive_key(settings(), keep_old=not delete_old))
    if as_json:
        print_json(rotated)
        return
    out.print(f"{rotated.new} follows {rotated.old} after segment {rotated.after_segment}", highlight=False)
    kept = f"is kept in {rotated.kept}" if rotated.kept else "is deleted"
    err.print(
        f"The old private key {kept}. Until the next segment is sealed it could still seal one.",
        highlight=False,
        soft_wrap=True,
    )


def witness(archive: Where = None, as_json: Json = False) -> None:
    """Check what was sealed since the last visit, and sign the archive's head with this region's own key.

    Exit code 1, and no signature, where the archive was cut short or rewritten since.
    """
    found = run(engine.witness(settings(), where=archive))
    if as_json:
        print_json(found)
        return
    out.print(
        f"segment {found.segment} witnessed by {found.witness} ({found.segments} new)", highlight=False, soft_wrap=True
    )
    err.print(
        f"Keep {found.remembered} apart from the archive: it shows when that is cut or rewritten.", soft_wrap=True
    )
