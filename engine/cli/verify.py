"""`relight verify`."""

from collections.abc import Iterator
from typing import Annotated

import typer

from relight.engine.app import auditing as engine
from relight.engine.app.auditing import Verified
from relight.engine.audit.models import Finding
from relight.engine.audit.report import Audit, Numbers
from relight.engine.cli.output import Json, out, print_json, progress, run, settings

SHOWN = 200
"""Findings; --json lists all."""
NAMED = 5


def verify(
    archive: Annotated[
        str | None, typer.Option("--archive", help="Check the archive there alone; no server is asked.")
    ] = None,
    trust: Annotated[
        str | None, typer.Option(help="Id of the key that the archive has to begin with (RELIGHT_ARCHIVE_TRUST).")
    ] = None,
    publisher: Annotated[str | None, typer.Option(help="Only what concerns this publisher or control subject.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only publishers that recorded something of this tenant.")] = None,
    as_json: Json = False,
) -> None:
    """Walk every publisher's chain on the stream, beside the tables and the archive, and name whatever is not right.

    Changes nothing. Exit code 0 when all is as it was recorded, 1 when there is any finding.
    """
    if archive is not None and tenant is not None:
        raise typer.BadParameter("an archive alone is checked for all tenants", param_hint="--tenant")
    here = settings()
    with progress() as bar:
        task = bar.add_task("", total=None)

        def advanced(what: str, done: int, of: int) -> None:
            bar.update(task, description=what, completed=done, total=of)

        if archive is not None:
            found = run(engine.verify_archive(here, archive, trust=trust, advanced=advanced))
        else:
            looking = engine.verify_stream(here, trust=trust, publisher=publisher, tenant=tenant, advanced=advanced)
            found = run(looking)
    findings = [one for one in found.findings if publisher is None or one.publisher in (None, publisher)]
    if as_json:
        print_json(_document(found, findings))
    else:
        _show(found, findings)
    if findings:
        raise typer.Exit(1)


def _document(found: Verified, findings: list[Finding]) -> dict[str, object]:
    return {
        "clean": not findings,
        "findings": findings,
        "stream": found.stream and found.stream.model_dump(mode="json", exclude={"findings"}),
        "archive": found.archive and found.archive.model_dump(mode="json", exclude={"findings"}),
    }


def _show(found: Verified, findings: list[Finding]) -> None:
    for finding in findings[:SHOWN]:
        _say(_line(finding))
    if len(findings) > SHOWN:
        _say(f"and {len(findings) - SHOWN} more findings: --json lists all")
    if findings:
        _say("")
    for line in (*_checked(found), *_apart(found.stream), *_unsaid(found)):
        _say(line)
    _say("nothing is wrong" if not findings else f"{len(findings)} findings")


def _line(finding: Finding) -> str:
    parts = [f"{finding.kind:9}", finding.where]
    if finding.publisher is not None:
        parts.append(finding.publisher)
    if finding.first_pseq is not None and finding.last_pseq is not None:
        one = finding.first_pseq == finding.last_pseq
        parts.append(f"number {finding.first_pseq}" if one else f"numbers {finding.first_pseq}-{finding.last_pseq}")
    if finding.seq is not None:
        parts.append(f"at sequence {finding.seq}")
    if finding.segment is not None:
        parts.append(f"in segment {finding.segment}")
    return f"{' '.join(parts)}: {finding.detail}"


def _checked(found: Verified) -> Iterator[str]:
    if (stream := found.stream) is not None:
        of = stream.checked
        yield (
            f"stream: {of.messages} messages up to sequence {of.last_seq}, {of.events} events of {of.publishers}"
            f" publishers; the tables have folded it up to {of.position_seq}"
        )
    if (archive := found.archive) is not None:
        yield (
            f"archive {archive.place}: {archive.segments} segments, {archive.events} events of {archive.publishers}"
            f" publishers, {archive.contents} contents"
        )


def _apart(stream: Audit | None) -> Iterator[str]:
    """What is known and no finding."""
    if stream is None:
        return
    of = stream.checked
    for count, what in (
        (of.healed_copies, "healed copies"),
        (of.repeated, "events sent twice by their publishers, long after each other"),
        (of.mended, "unreadable messages whose event stands there as a healed copy"),
    ):
        if count:
            yield f"no finding: {count} {what}"
    for loss in stream.declared_lost:
        yield (
            f"declared lost: {loss.publisher} numbers {loss.first_pseq}-{loss.last_pseq}, by {loss.decided_by}:"
            f" {loss.reason}"
        )


def _unsaid(found: Verified) -> Iterator[str]:
    """What cannot be vouched for."""
    stream, archive = found.stream, found.archive
    if stream is not None:
        if not stream.position_holds:
            yield "unknown: whether the tables have read this very stream; it was put back, or changed where they are"
        if trimmed := _count(stream.only_archived):
            yield f"unknown here: {trimmed} events that were trimmed; only an archive can vouch for them"
        if stream.unvouched_events:
            yield f"unknown: {stream.unvouched_events} events, the last of their publishers, whose hash nobody holds"
        if stream.absent_sequences:
            yield f"unknown: what stood at {stream.absent_sequences} sequences of the stream that are empty"
        if doubts := stream.tails_in_doubt:
            named = ", ".join(f"{doubt.publisher} after {doubt.last_pseq}" for doubt in doubts[:NAMED])
            more = f" and {len(doubts) - NAMED} more" if len(doubts) > NAMED else ""
            yield f"in doubt: whether these recorded more before they ended without a word: {named}{more}"
        if archive is None:
            yield "not asked: an archive (RELIGHT_ARCHIVE); without one, altered events are told by their neighbours"
    if archive is not None and archive.unchecked:
        yield f"not compared: {archive.unchecked} numbers that the archive holds again"
    if archive is not None and archive.unsealed:
        yield f"not sealed: files of segments {', '.join(map(str, archive.unsealed[:NAMED]))} without a manifest"


def _count(numbers: Numbers) -> int:
    return sum(last - first + 1 for ranges in numbers.values() for first, last in ranges)


def _say(line: str) -> None:
    out.print(line, highlight=False, markup=False, soft_wrap=True)
