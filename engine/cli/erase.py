"""`relight erase`."""

from typing import Annotated

import typer

from relight.engine.app.erasing import erase as erase_contents
from relight.engine.archive.contents import is_digest
from relight.engine.cli.output import Json, out, print_json, print_models, progress, run, settings
from relight.engine.erasure.demand import Demand
from relight.engine.erasure.erasing import Erased, Found

SHOWN = 20


def erase(
    tenant: Annotated[str, typer.Option(help="Whose content; - for the platform's.")],
    reason: Annotated[str, typer.Option(help="Why; it is recorded.")],
    decided_by: Annotated[str, typer.Option(help="Who decided it; it is recorded.")],
    correlation: Annotated[str | None, typer.Option(help="Only of events of this run or incident.")] = None,
    entity: Annotated[str | None, typer.Option(help="Only of events about this entity.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only of decisions that this agent took.")] = None,
    content: Annotated[list[str] | None, typer.Option(help="This content, by its SHA-256.")] = None,
    archive: Annotated[
        list[str] | None, typer.Option(help="Erase in this archive, too, beside that of RELIGHT_ARCHIVE.")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Say what would be erased, and erase nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Delete content of a tenant for good: from the content store, the regions' own copies, archives, and spools of
    this home.

    Events stay as they are; that their content was erased is recorded. Without --correlation, --entity, --agent or
    --content it is all content of the tenant. Cut short, the same command completes it.
    """
    contents = tuple(dict.fromkeys(content or ()))
    if wrong := [one for one in contents if not is_digest(one)]:
        raise typer.BadParameter(f"{wrong[0]!r} is no SHA-256: 64 digits, a to f in lower case", param_hint="--content")
    demand = Demand(
        tenant=tenant,
        decided_by=decided_by,
        reason=reason,
        correlation=correlation,
        entity=entity,
        agent=agent,
        contents=contents,
    )
    with progress() as bar:
        tasks = {stage: bar.add_task(stage, total=None, start=False) for stage in ("stream", "archives", "contents")}

        def advanced(stage: str, done: int, total: int | None) -> None:
            bar.start_task(tasks[stage])
            bar.update(tasks[stage], completed=done, total=total)

        def told(found: Found) -> None:
            if not as_json:
                _print_found(found)

        done = run(
            erase_contents(settings(), demand, archives=archive or (), dry_run=dry_run, told=told, advanced=advanced)
        )
    if as_json:
        print_json(done)
    elif done.erased is not None:
        _print_erased(done.erased, projected=done.projected)


def _print_found(found: Found) -> None:
    there = [one for one in found.contents if one.stored or one.archives]
    out.print(
        f"erasure {found.erasure}: {found.scope}; {len(found.contents)} contents, of which {len(there)} are there"
        f" ({found.size_bytes} bytes in the content store)",
        highlight=False,
        soft_wrap=True,
    )
    shared = [one for one in found.contents if one.other_events and one.events]
    if shared:
        print_models("Other events of the tenant refer to these, too", shared[:SHOWN], empty="")
        if len(shared) > SHOWN:
            out.print(f"... and {len(shared) - SHOWN} more (--json lists all)", highlight=False)
    if found.damaged_segments:
        out.print(
            f"{found.damaged_segments} segments of archives are damaged: what else they refer to is not known",
            highlight=False,
            soft_wrap=True,
        )


def _print_erased(erased: Erased, *, projected: bool) -> None:
    out.print(
        f"erased {erased.stored_bytes} bytes from the content store ({erased.regional} copies in regions' own buckets),"
        f" {erased.archived} files from archives,"
        f" {erased.spooled} from spools; {erased.recorded} contents are on record as erased"
        + ("" if projected else " (the record waits for a projector)"),
        highlight=False,
        soft_wrap=True,
    )
    if erased.spools_held:
        out.print(
            f"{erased.spools_held} spools of live processes hold some: they are dropped there instead of being stored",
            highlight=False,
            soft_wrap=True,
        )
    for name in erased.unreadable_spools:
        out.print(f"spool {name} cannot be read: look whether it holds any of these contents", highlight=False)
