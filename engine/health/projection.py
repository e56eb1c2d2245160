"""The projector and what it has come to: how far it is behind the stream, since when, and what is wrong with events."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from relight.engine.health.limits import LAG_S, STANDS_STILL_S
from relight.engine.health.models import Check
from relight.engine.health.postgres import DatabaseLook
from relight.engine.health.stream import StreamLook
from relight.engine.tables.projector import Projector, ProjectorState


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the tables are on the stream; `still_s`: since when they have not moved."""

    position: str | None
    seq: int
    moved_at: datetime | None
    still_s: float


def place(look: DatabaseLook, projector: Projector | None) -> Place | None:
    """As the tables say; while they cannot be asked, as the projector here remembers. None: nobody knows."""
    tables = look.tables
    if tables is not None and tables.seq is not None:
        return Place(
            position=tables.position, seq=tables.seq, moved_at=tables.moved_at, still_s=max(0.0, tables.still_s or 0)
        )
    if projector is not None and projector.position is not None and look.failure is not None:
        return Place(
            position=str(projector.position),
            seq=projector.position.seq,
            moved_at=None,
            still_s=time.monotonic() - projector.moved_at,
        )
    if tables is not None:
        return Place(position=None, seq=0, moved_at=None, still_s=float("inf"))
    return None


@dataclass(frozen=True, kw_only=True)
class Lag:
    """How far the tables are behind: messages, seconds since the stream took the first of them, and seconds in which
    the position has not moved although there were some."""

    events: int
    seconds: float | None
    stood_still_s: float | None


def lag(at: Place, stream: StreamLook, waiting_since: datetime | None) -> Lag:
    """`waiting_since`: when the stream took the first message beyond the position, by its own clock."""
    events = max(0, (stream.last_seq or 0) - at.seq)
    if events == 0:
        return Lag(events=0, seconds=0.0, stood_still_s=0.0)
    if waiting_since is None or stream.server_now is None:
        return Lag(events=events, seconds=None, stood_still_s=None)
    seconds = max(0.0, (stream.server_now - waiting_since).total_seconds())
    # Before the first of them came there was nothing to move for.
    return Lag(events=events, seconds=seconds, stood_still_s=min(seconds, at.still_s))


def projector_checks(projector: Projector | None, now: datetime) -> Iterator[Check]:
    if projector is None:
        return
    yield Check(component="projector", measurement="state", time=now, observed=projector.state.value).failed(
        projector.state is ProjectorState.FAILED,
        f"projector: {projector.failure}; it tries again by itself, and goes on where it was",
    )


def lag_checks(at: Place | None, behind: Lag | None, now: datetime) -> Iterator[Check]:
    projection = partial(Check, component="projection", time=now)
    if at is not None:
        if at.position is not None:
            yield projection(measurement="position", observed=at.position)
        yield projection(measurement="sequence", observed=at.seq)
        if at.moved_at is not None:
            yield projection(measurement="movedAt", observed=at.moved_at.isoformat())
    if behind is None:
        return
    yield projection(measurement="lag", observed=behind.events, unit="events")
    if behind.seconds is None or behind.stood_still_s is None:
        return
    still = behind.stood_still_s > STANDS_STILL_S
    yield projection(measurement="lagTime", observed=round(behind.seconds, 3), unit="s").warned(
        behind.seconds > LAG_S,
        f"the tables are {behind.events} events and {behind.seconds:.0f} s behind the stream"
        + ("" if still else ": they are catching up"),
    )
    yield projection(measurement="stoodStill", observed=round(behind.stood_still_s, 3), unit="s").warned(
        still,
        f"the projector stands still for {behind.stood_still_s:.0f} s, {behind.events} events behind the stream: does"
        " one run, and what does its log say?",
    )


def event_checks(look: DatabaseLook, now: datetime) -> Iterator[Check]:
    """What the projector has noted of events that are missing or dead."""
    projection = partial(Check, component="projection", time=now)
    if look.tables is None:
        return
    found = look.tables.counts
    if found is None:
        yield projection(measurement="counts").warned(
            True, "gaps, forks and dead letters could not be counted in time: PostgreSQL is slow; look at its load"
        )
        return
    yield projection(measurement="gaps", observed=found.gaps)
    for measurement, count, meaning in (
        ("missingEvents", found.missing_events, "events are missing from the stream (see publisher_gaps)"),
        ("refusedEvents", found.refused_events, "events were refused by full recorders"),
        ("deadLetters", found.dead_letters, "dead letters (see `relight deadletter list`)"),
    ):
        yield projection(measurement=measurement, observed=count).warned(count, f"{count} {meaning}")
