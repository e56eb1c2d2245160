"""This machine's disk, and this process's own state."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from relight.engine.health.limits import DISK_FULL_BYTES, DISK_LOW_BYTES
from relight.engine.health.models import Check, Kind
from relight.engine.health.readiness import Phase, Readiness


@dataclass(frozen=True, kw_only=True)
class Disk:
    """Of the file system that holds the home."""

    free_bytes: int
    total_bytes: int


def disk_of(home: Path) -> Disk:
    """A home that does not exist yet is looked for where it would be made."""
    there = home.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    found = shutil.disk_usage(there)
    return Disk(free_bytes=found.free, total_bytes=found.total)


def disk_checks(disk: Disk | None, home: Path, now: datetime) -> Iterator[Check]:
    free = partial(Check, component="disk", measurement="free", kind=Kind.SYSTEM, time=now)
    if disk is None:
        yield free().warned(True, f"the file system of {home} did not answer in time: is it a network's?")
        return
    why = f"{disk.free_bytes >> 20} MiB are free where {home} is: recording stops when the disk is full; make room"
    yield (
        free(observed=disk.free_bytes, unit="bytes")
        .warned(disk.free_bytes < DISK_LOW_BYTES, why)
        .failed(disk.free_bytes < DISK_FULL_BYTES, why)
    )


def process_checks(readiness: Readiness | None, dead_tasks: Sequence[str], now: datetime) -> Iterator[Check]:
    """`readiness` is None in a process that serves nothing."""
    if readiness is None:
        return
    yield Check(component="http", measurement="phase", time=now, observed=readiness.phase.value).warned(
        readiness.phase is not Phase.READY, f"this process is {readiness.phase.value}: {readiness.reason}"
    )
    yield Check(component="process", measurement="deadTasks", time=now, observed=list(dead_tasks)).failed(
        dead_tasks, f"{', '.join(dead_tasks)} ended by itself: restart this process"
    )
