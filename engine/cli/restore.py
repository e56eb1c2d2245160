"""`relight restore`."""

from typing import Annotated

import typer

from relight.engine.app.restoring import Restored
from relight.engine.app.restoring import restore as restore_archive
from relight.engine.cli.output import Json, out, print_json, print_models, print_table, progress, run, settings

SHOWN = 50


def restore(
    source: Annotated[str, typer.Option("--from", help="Where the archive lies: a folder, or s3://bucket/prefix.")],
    replicas: Annotated[int, typer.Option(help="Of the stream, where it is declared anew.", min=1, max=5)] = 1,
    strict: Annotated[bool, typer.Option(help="Restore nothing if any part of the archive is damaged.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Read the archive and say what would be restored.")] = False,
    as_json: Json = False,
) -> None:
    """Bring back stream, contents and tables from an archive; what was cut short goes on where it was.

    Stop whoever records and serves before. Exit code 1 where a part of the archive is damaged: the rest is restored.
    """
    with progress() as bar:
        tasks = {stage: bar.add_task(stage, total=None, start=False) for stage in ("events", "contents", "tables")}

        def advanced(stage: str, done: int, total: int | None) -> None:
            bar.start_task(tasks[stage])
            bar.update(tasks[stage], completed=done, total=total)

        found = run(
            restore_archive(settings(), source, replicas=replicas, strict=strict, dry_run=dry_run, advanced=advanced)
        )
    if as_json:
        print_json(found)
    else:
        _print(found)
    if found.findings:
        raise typer.Exit(1)


def _print(found: Restored) -> None:
    would = "would be " if found.dry_run else ""
    lines = [
        f"archive {found.archive} at {found.place}: {found.segments} segments",
        f"{found.restored} events {would}restored up to sequence {found.last_seq}, {found.already} stood there already",
    ]
    if found.copied:
        lines.append(f"{found.copied} events of an earlier incarnation of the stream {would}put behind them, as copies")
    if not found.dry_run:
        contents = found.contents
        lines.append(
            f"{contents.restored} contents restored, {contents.already} were there, {contents.erased} stay erased,"
            f" {len(contents.damaged)} cannot be read"
        )
        rate = round(found.restored / found.stream_took_s) if found.stream_took_s else 0
        lines.append(f"in {found.took_s:.1f} s; the stream in {found.stream_took_s:.1f} s ({rate} events/s)")
        lines.append("The stream's timestamps are those of now; the original ones remain in the archive.")
    if found.missing_contents:
        lines.append(f"{found.missing_contents} contents that events refer to are not in the archive, nor were erased")
    for line in lines:
        out.print(line, highlight=False, soft_wrap=True)
    if found.digest is not None:
        digest = found.digest
        out.print(f"tables at position {digest.position}, {digest.deadletters} dead letters", highlight=False)
        print_table(
            None, ("table", "rows", "sha256"), ((name, digest.rows[name], sha) for name, sha in digest.tables.items())
        )
    if found.findings:
        print_models("Damaged in the archive, and so not restored", found.findings[:SHOWN], empty="")
        if len(found.findings) > SHOWN:
            out.print(f"... and {len(found.findings) - SHOWN} more (--json lists all)", highlight=False)
