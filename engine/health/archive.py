"""The archive: how far it is sealed and behind the stream, what keeps it, and what was gone before it came."""

from collections.abc import Iterator
from datetime import datetime
from functools import partial

from relight.engine.archive.coverage import named
from relight.engine.archive.look import ArchiverLook, ArchiverState
from relight.engine.health.limits import LAG_S
from relight.engine.health.models import Check, Kind
from relight.engine.health.stream import StreamLook


def archive_checks(look: ArchiverLook | None, stream: StreamLook, now: datetime) -> Iterator[Check]:
    """Of the archiver in this process; None where there is none."""
    if look is None:
        return
    archive = partial(Check, component="archive", kind=Kind.DATASTORE, time=now)
    events = None if stream.last_seq is None else max(0, stream.last_seq - look.sealed_seq)
    seconds = None
    if look.oldest_in_hand is not None and stream.server_now is not None:
        seconds = max(0.0, (stream.server_now - look.oldest_in_hand).total_seconds())
    elif events == 0:
        seconds = 0.0
    behind = _behind(events, seconds)
    yield archive(measurement="state", observed=look.state.value).warned(
        look.state is ArchiverState.FAILED,
        f"the archive waits for {look.failing_for_s or 0:.0f} s ({look.failure}); {behind}. It tries again by itself,"
        " and nothing is lost: the stream is not trimmed beyond what is sealed",
    )
    yield archive(measurement="segments", observed=look.segment)
    yield archive(measurement="incarnation", observed=look.incarnation)
    yield archive(measurement="sealedSequence", observed=look.sealed_seq)
    yield archive(measurement="sealedEvents", observed=look.messages, unit="events")
    yield archive(measurement="size", observed=look.size_bytes, unit="bytes")
    if look.sealed_at is not None:
        yield archive(measurement="sealedAt", observed=look.sealed_at.isoformat())
    if look.state is not ArchiverState.STANDBY:
        yield from _lag_checks(look, events, seconds, behind, archive)
    yield archive(measurement="missingMessages", observed=look.missing_messages, unit="events").warned(
        look.missing_now or (look.missing_messages and look.holes),
        f"{look.missing_messages} messages went from the stream before they were sealed, at sequences"
        f" {named(look.missing_now or look.missing)}: `relight verify` says whose they were",
    )
    yield archive(measurement="contents", observed=look.contents)
    yield archive(measurement="missingContents", observed=look.contents_missing)
    yield archive(measurement="brokenChains", observed=look.holes)
    yield archive(measurement="forks", observed=look.forks).warned(
        look.forks, f"{look.forks} sealed events do not follow their publisher's chain: was a spool copied?"
    )
    yield archive(measurement="unreadSegments", observed=list(look.unread)).warned(
        look.unread,
        f"segments {named([(segment, segment) for segment in look.unread])} cannot be read: `relight verify` says what"
        " is wrong; what they hold is not counted as sealed",
    )
    yield archive(measurement="tables", observed="behind" if look.tables_failure else "as sealed").warned(
        look.tables_failure,
        f"archives and sealed_heads are not brought up to date ({look.tables_failure}): spools keep what is sealed",
    )


def _lag_checks(
    look: ArchiverLook, events: int | None, seconds: float | None, behind: str, archive: "partial[Check]"
) -> Iterator[Check]:
    if events is not None:
        yield archive(measurement="lag", observed=events, unit="events")
    if seconds is not None:
        yield archive(measurement="lagTime", observed=round(seconds, 3), unit="s").warned(
            look.state is ArchiverState.LIVE and seconds > look.seal_s + LAG_S, f"the archive lags: {behind}"
        )


def _behind(events: int | None, seconds: float | None) -> str:
    if events is None:
        return "how far it is behind cannot be told while NATS is away"
    return f"{events} events" + (f" and {seconds:.0f} s" if seconds is not None else "") + " are not sealed yet"
