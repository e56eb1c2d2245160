"""What is recorded on this machine and not yet on the stream: of every spool in its folder, whoever writes it."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pydantic import JsonValue

from relight.engine.health.figures import ExposedSpool
from relight.engine.health.limits import EXPOSED_TOO_LONG_S
from relight.engine.health.models import Check
from relight.engine.recorder.options import RecorderHealth
from relight.engine.spool.listing import ListedSpool, State, list_spools

MOST_SHOWN = 50
"""Spools that are shown one by one: the longest waiting first."""


def exposed_spools(folder: Path, *, now_ms: int) -> ExposedSpool:
    """Adds up the spools in `folder`, those of live processes included; reads only."""
    return exposed_of(list_spools(folder), now_ms=now_ms)


def exposed_of(found: Sequence[ListedSpool], *, now_ms: int) -> ExposedSpool:
    """All of them together."""
    used = [spool for spool in found if spool.state is not State.ASIDE]
    oldest = min((spool.oldest for spool in used if spool.oldest is not None), default=None)
    return ExposedSpool(
        spools=len(used),
        events=sum(spool.events for spool in used),
        bytes=sum(spool.bytes for spool in used),
        oldest_s=None if oldest is None else _age_s(oldest, now_ms),
        unreadable=tuple(spool.trouble for spool in used if spool.trouble is not None),
        aside=tuple(spool.file for spool in found if spool.state is State.ASIDE),
    )


def spool_checks(found: Sequence[ListedSpool] | None, now: datetime) -> Iterator[Check]:
    """None: the disk did not answer."""
    spools = partial(Check, component="spools", time=now)
    if found is None:
        yield spools(measurement="count").warned(True, "the spools here could not be read in time: is their disk slow?")
        return
    now_ms = round(now.timestamp() * 1_000)
    every = exposed_of(found, now_ms=now_ms)
    yield spools(measurement="count", observed=every.spools)
    yield spools(measurement="exposedEvents", observed=every.events, unit="events")
    yield spools(measurement="exposedBytes", observed=every.bytes, unit="bytes")
    if every.oldest_s is not None:
        yield spools(measurement="exposedAge", observed=round(every.oldest_s, 3), unit="s").warned(
            every.oldest_s > EXPOSED_TOO_LONG_S,
            f"{every.events} events wait in spools of this machine, the oldest {every.oldest_s:.0f} s: they go by"
            " themselves once a process of this home runs and NATS answers",
        )
    yield spools(measurement="unreadable", observed=list(every.unreadable)).warned(
        every.unreadable, "; ".join(every.unreadable)
    )
    yield spools(measurement="aside", observed=list(every.aside)).warned(every.aside, _why_aside(found))
    waiting = [spool for spool in found if spool.oldest is not None or spool.bytes]
    waiting.sort(key=lambda spool: spool.oldest or now)
    for spool in waiting[:MOST_SHOWN]:
        age_s = None if spool.oldest is None else round(_age_s(spool.oldest, now_ms), 3)
        held: JsonValue = {"events": spool.events, "bytes": spool.bytes, "oldest_s": age_s, "state": spool.state.value}
        yield spools(measurement="exposed", id=spool.file, observed=held)


def _why_aside(found: Sequence[ListedSpool]) -> str:
    aside = [spool for spool in found if spool.state is State.ASIDE]
    unreadable = sum(spool.unreadable_events for spool in aside)
    return (
        f"{len(aside)} spools were put aside, and {unreadable} numbers of them cannot be read: see `relight spool"
        " list`, and `relight spool retire` each once it is settled"
    )


def _age_s(oldest: datetime, now_ms: int) -> float:
    return max(0.0, now_ms / 1_000 - oldest.astimezone(UTC).timestamp())


def recorder_checks(health: RecorderHealth | None, now: datetime) -> Iterator[Check]:
    """Of the recorder that takes events from outside; None where there is none."""
    if health is None:
        return
    recorder = partial(Check, component="recorder", time=now)
    yield recorder(measurement="state", observed="waiting" if health.failure else "recording").warned(
        health.failure, f"the recorder of this service waits ({health.failure}); what it took stays in its spool"
    )
    yield recorder(measurement="recordedEvents", observed=health.recorded_events, unit="events")
    yield recorder(measurement="exposedEvents", observed=health.exposed_events, unit="events")
    yield recorder(measurement="refusedEvents", observed=health.refused_events, unit="events").warned(
        health.refused_events,
        f"{health.refused_events} events were refused here for want of space: raise RELIGHT_SPOOL_MAX_BYTES",
    )
    yield recorder(measurement="evictedUnsealed", observed=health.evicted_unsealed, unit="events").warned(
        health.evicted_unsealed,
        f"{health.evicted_unsealed} events left the spool for want of room before they were safe elsewhere: the stream"
        " has them, but a loss there could not be healed from here; raise RELIGHT_SPOOL_MAX_BYTES, or mend the archive",
    )
    yield recorder(measurement="restarts", observed=health.restarts)
    yield recorder(measurement="spool", observed="memory" if health.spool_fault else "disk").warned(
        health.spool_fault,
        f"the recorder of this service holds events in memory ({health.spool_fault}): a crash would lose what the"
        " stream does not have; it goes back to the disk by itself",
    )
    yield recorder(measurement="alarm", observed=health.alarm or "none").failed(
        health.alarm, f"{health.alarm}: see `relight verify`"
    )
