"""`relight archive`, `relight archive status|trim`; its keys and witnesses are beside it."""

import getpass
import sys
from dataclasses import asdict
from typing import Annotated

import orjson
import typer
from rich.progress import Progress, TaskID

from relight.engine.app import archiving as engine
from relight.engine.archive.coverage import named
from relight.engine.archive.look import ArchiverLook, ArchiverState
from relight.engine.archive.status import ArchiveStatus
from relight.engine.archive.trimming import TrimPlan
from relight.engine.cli import archive_keys
from relight.engine.cli.output import Json, err, fail, out, print_json, progress, run, settings
from relight.engine.tables.keeping import parse_keep

app = typer.Typer(help="Write the archive, and say how it is.", invoke_without_command=True)
app.add_typer(archive_keys.key, name="key")
app.command("witness")(archive_keys.witness)

To = Annotated[str | None, typer.Option("--to", help="Where the archive is to lie (RELIGHT_ARCHIVE).")]


@app.callback()
def write(
    context: typer.Context,
    to: To = None,
    once: Annotated[bool, typer.Option("--once", help="Seal all that is there now, then end.")] = False,
    as_json: Json = False,
) -> None:
    """Seal the stream into the archive, in the foreground; Ctrl-C or SIGTERM seals what is in hand and ends.

    Several may run on one archive: one is at work. With --json, one line for each sealed segment, and a last one.
    Exit code 1 when messages were gone from the stream before they could be sealed, or something was left unsealed.
    """
    if context.invoked_subcommand is not None:
        return
    here = settings()
    with progress() as bar:
        telling = _Telling(bar, as_json)
        done = run(
            engine.run_archive(here, place=to, once=once, told=telling.look, advanced=telling.reads), serving=not once
        )
    look = done.look
    if as_json:
        _print_line(look)
    else:
        out.print(_said(look), highlight=False, soft_wrap=True)
    if look.missing_now:
        fail(f"messages {named(look.missing_now)} were gone from the stream before they were sealed")
    if done.unsealed:
        fail(f"{done.unsealed} messages were read and not sealed ({look.failure}): they will be read again")


class _Telling:
    """A line on a terminal that goes with the archiver; without one, a line for every change of its state."""

    def __init__(self, bar: Progress, as_json: bool) -> None:
        self._bar = bar
        self._json = as_json
        self._segment: int | None = None
        self._state: ArchiverState | None = None
        self._task: TaskID = bar.add_task("reading the archive", total=None)

    def reads(self, segment: int, last: int) -> None:
        self._bar.update(self._task, description="reading the archive", completed=segment, total=last)

    def look(self, look: ArchiverLook) -> None:
        self._bar.update(self._task, description=_said(look), completed=look.in_hand, total=None)
        if self._segment is not None and look.segment > self._segment and self._json:
            _print_line(look)
        if look.archive is not None:
            self._segment = look.segment
        if look.state is not self._state and not self._json:
            self._state = look.state
            why = f": {look.failure}" if look.failure else ""
            err.print(f"{look.place}: {look.state.value}{why}", highlight=False, soft_wrap=True, markup=False)


def _said(look: ArchiverLook) -> str:
    return f"sealed through {look.sealed_seq:,} in {look.segment:,} segments, {look.size_bytes / 1e6:,.1f} MB"


def _print_line(look: ArchiverLook) -> None:
    sys.stdout.write(orjson.dumps(asdict(look)).decode() + "\n")
    sys.stdout.flush()


@app.command("status")
def status(archive: archive_keys.Where = None, as_json: Json = False) -> None:
    """Say what the archive holds and how far it is behind the stream. Exit code 1 when something is wrong with it."""
    here = settings()
    with progress() as bar:
        task = bar.add_task("segments", total=None)
        found = run(
            engine.archive_status(
                here, place=archive, advanced=lambda segment, last: bar.update(task, completed=segment, total=last)
            )
        )
    if as_json:
        print_json(found)
    else:
        _print_status(found)
    faults = _faults(found)
    if faults and not as_json:
        fail("; ".join(faults))
    if faults:
        raise typer.Exit(1)


def _print_status(found: ArchiveStatus) -> None:
    lines = [
        f"archive {found.archive} in {found.place}, sealed by key {found.key or '-'}",
        f"{found.segments:,} segments, {found.events:,} events of {found.publishers:,} publishers,"
        f" {found.size_bytes / 1e6:,.1f} MB",
        f"sealed through sequence {found.sealed_seq:,}"
        + (f" at {found.sealed_at:%Y-%m-%d %H:%M:%S} UTC" if found.sealed_at else "")
        + f", incarnation {found.incarnation}",
    ]
    if found.stream is not None:
        lines.append(f"{found.stream.lag_events:,} events and {found.stream.lag_s:,.0f} s behind the stream")
    for line in lines:
        out.print(line, highlight=False, soft_wrap=True, markup=False)


@app.command("trim")
def trim(
    keep: Annotated[str, typer.Option(help="How long messages stay on the stream: 36h, 7d, 12w, 2y.")],
    archive: archive_keys.Where = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compare everything, and take nothing away.")] = False,
    decided_by: Annotated[
        str | None, typer.Option(help="Who decided it, for the record; your login if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Take off the stream what is older than --keep, projected and sealed; each message is compared with the archive
    first. Of every ruling's subject the last message stays. It needs a projector at work, and is recorded.
    """
    limit = parse_keep(keep, "--keep")
    if limit is None:
        raise typer.BadParameter("messages that are kept forever need no trimming", param_hint="--keep")
    here = settings()
    with progress() as bar:
        task = bar.add_task("messages compared", total=None)
        done = run(
            engine.trim_stream(
                here,
                place=archive,
                keep=limit,
                dry_run=dry_run,
                decided_by=decided_by or getpass.getuser(),
                advanced=lambda seq, end: bar.update(task, completed=seq, total=end),
            )
        )
    if as_json:
        print_json(done)
        return
    plan = done if isinstance(done, TrimPlan) else done.plan
    verb = "would be trimmed" if isinstance(done, TrimPlan) else "trimmed"
    out.print(
        f"{verb}: {plan.observations:,} observations and {plan.rulings:,} rulings up to sequence {plan.through_seq:,},"
        f" {plan.body_bytes / 1e6:,.1f} MB; all of them are in the archive as they stood",
        highlight=False,
        soft_wrap=True,
    )
    if plan.limited_by != "age":
        out.print(
            f"Not further, though older than {plan.older_than:%Y-%m-%d %H:%M:%S} UTC: the tables have come to"
            f" {plan.projected_seq:,}, the archive to {plan.sealed_seq:,}.",
            highlight=False,
            soft_wrap=True,
        )


def _faults(found: ArchiveStatus) -> list[str]:
    faults = []
    if found.stream is not None and not found.stream.agrees:
        faults.append(f"the stream was put back: message {found.sealed_seq} is not the one that was sealed")
    if found.missing_messages:
        faults.append(
            f"{found.missing_messages} messages were gone from the stream before they were sealed:"
            f" {named(found.missing)}"
        )
    if found.forks:
        faults.append(f"{found.forks} events do not follow their publisher's chain")
    if found.unread_segments:
        faults.append(f"segments {', '.join(map(str, found.unread_segments))} cannot be read")
    return faults
