"""What is recorded on this machine and not yet on the stream: of every spool in its folder, whoever writes it."""

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

from relight.engine.errors import SpoolUnusable
from relight.engine.health.figures import ExposedSpool
from relight.engine.health.limits import EXPOSED_TOO_LONG_S
from relight.engine.health.models import Check
from relight.engine.log.options import RecorderHealth
from relight.engine.log.spool import Spool


def exposed_spools(folder: Path, *, now_ms: int) -> ExposedSpool:
    """Adds up the spools in `folder`, those of live processes included; reads only."""
    events, size, oldest_ms, unreadable = 0, 0, None, []
    paths = sorted(folder.glob("*.db")) if folder.is_dir() else []
    for path in paths:
        try:
            spool = Spool(path, read_only=True)
            try:
                exposure = spool.exposure()
            finally:
                spool.close()
        except SpoolUnusable as error:
            unreadable.append(str(error))
            continue
        events, size = events + exposure.events, size + exposure.bytes
        if exposure.oldest_ms is not None:
            oldest_ms = min(exposure.oldest_ms, oldest_ms or exposure.oldest_ms)
    return ExposedSpool(
        spools=len(paths),
        events=events,
        bytes=size,
        oldest_s=None if oldest_ms is None else max(0, now_ms - oldest_ms) / 1_000,
        unreadable=tuple(unreadable),
    )


def spool_checks(found: ExposedSpool | None, now: datetime) -> Iterator[Check]:
    """None: the disk did not answer."""
    spools = partial(Check, component="spools", time=now)
    if found is None:
        yield spools(measurement="count").warned(True, "the spools here could not be read in time: is their disk slow?")
        return
    yield spools(measurement="count", observed=found.spools)
    yield spools(measurement="exposedEvents", observed=found.events, unit="events")
    yield spools(measurement="exposedBytes", observed=found.bytes, unit="bytes")
    if found.oldest_s is not None:
        yield spools(measurement="exposedAge", observed=round(found.oldest_s, 3), unit="s").warned(
            found.oldest_s > EXPOSED_TOO_LONG_S,
            f"{found.events} events wait in spools of this machine, the oldest {found.oldest_s:.0f} s: they go by"
            " themselves once a process of this home runs and NATS answers",
        )
    yield spools(measurement="unreadable", observed=list(found.unreadable)).warned(
        found.unreadable, "; ".join(found.unreadable)
    )


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
