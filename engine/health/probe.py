"""Looks at everything at once, each look bounded, and shares what it found with whoever asks at the same time."""

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from nats.aio.client import Client

from relight.engine.archive.look import ArchiverLook
from relight.engine.clock import Clock
from relight.engine.health.archive import archive_checks
from relight.engine.health.breakers import breaker_checks
from relight.engine.health.chains import chain_checks
from relight.engine.health.healing import healing_checks
from relight.engine.health.limits import CACHE_S, LOOK_S
from relight.engine.health.machine import disk_checks, disk_of, process_checks
from relight.engine.health.models import Check, Health
from relight.engine.health.pools import PoolWatch
from relight.engine.health.postgres import Database, database_checks
from relight.engine.health.projection import Lag, Place, event_checks, lag, lag_checks, place, projector_checks
from relight.engine.health.proof import ProofWatch, proof_checks
from relight.engine.health.readiness import Readiness
from relight.engine.health.region import region_checks
from relight.engine.health.spools import recorder_checks, spool_checks
from relight.engine.health.stream import StreamLook, first_after, look_at_stream, stream_checks
from relight.engine.health.vital import VitalTasks
from relight.engine.log.reader import TRANSIENT
from relight.engine.proving.asking import Attester
from relight.engine.recorder.options import RecorderHealth
from relight.engine.spool.listing import list_spools
from relight.engine.tables.connecting import Session
from relight.engine.tables.pools import Pool
from relight.engine.tables.projector import Projector
from relight.events.envelope import PLATFORM

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What is looked at; nothing in it is opened or closed here, but for the session that `connect` makes.

    `projector` and `prober` are None where none is at hand. `tenant` is the one whose breakers are told by name.
    """

    client: Client
    connect: Callable[[], Awaitable[Session]]
    home: Path
    region: str
    tenant: str = PLATFORM
    pools: Mapping[str, Pool] = field(default_factory=dict)
    projector: Projector | None = None
    prober: Attester | None = None
    clock: Clock = field(default_factory=Clock)


def service_id(region: str) -> str:
    """How this process names itself."""
    return f"relight:{region}:{socket.gethostname()}:{os.getpid()}"


class HealthProbe:
    """`check` looks; `recorder`, `archiver`, `region_parts`, `readiness` and `vital` are set by whoever serves."""

    def __init__(self, watched: Watched) -> None:
        self.watched = watched
        self.pools = PoolWatch(watched.pools)
        self.recorder: Callable[[], RecorderHealth] | None = None
        self.archiver: Callable[[], ArchiverLook] | None = None
        self.region_parts: Callable[[], Mapping[str, str | None]] | None = None
        self.readiness: Readiness | None = None
        self.vital = VitalTasks()
        self.latest: Health | None = None
        self._latest_at = 0.0
        self._looking: asyncio.Task[Health] | None = None
        self._database = Database(watched.connect, watched.clock, watched.tenant)
        self._proof = ProofWatch(watched.prober) if watched.prober else None
        self._spools = _InThread(partial(list_spools, watched.home / "spool"))
        self._disk = _InThread(partial(disk_of, watched.home))
        self._service_id = service_id(watched.region)

    async def check(self) -> Health:
        """Within 2 s, whatever hangs; a look that was just made, or is being made, serves all."""
        return await asyncio.shield(self._shared())

    async def refresh(self, *, within_s: float) -> None:
        """Makes `latest` and the rest what they are now, unless that takes longer: then it goes on by itself."""
        await asyncio.wait([self._shared()], timeout=within_s)

    def _shared(self) -> "asyncio.Task[Health]":
        """The last look while it is fresh, the one under way, or a new one."""
        held = self._looking
        if held is None or (held.done() and time.monotonic() - self._latest_at > CACHE_S):
            self._looking = held = asyncio.create_task(self._look(), name="health")
        return held

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking], timeout=LOOK_S)
        if self._proof is not None:
            await self._proof.close()
        await self._database.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _look(self) -> Health:
        watched, now = self.watched, self.watched.clock.now()
        database, stream, proof, spools, disk = await asyncio.gather(
            self._database.look(),
            look_at_stream(watched.client, watched.clock),
            self._proof.look() if self._proof else _nothing(),
            self._spools.look(),
            self._disk.look(),
        )
        at = place(database, watched.projector)
        behind = await self._lag(at, stream)
        checks: list[Check] = [
            *database_checks(database, now),
            *stream_checks(stream, now),
            *(proof_checks(proof, now) if self._proof else ()),
            *projector_checks(watched.projector, now),
            *lag_checks(at, behind, now),
            *event_checks(database, now),
            *healing_checks(database, now),
            *chain_checks(database.tables.chains if database.tables else None, now),
            *breaker_checks(database.tables.breakers if database.tables else None, now),
            *self.pools.checks(now),
            *spool_checks(spools, now),
            *recorder_checks(self.recorder() if self.recorder else None, now),
            *archive_checks(self.archiver() if self.archiver else None, stream, now),
            *region_checks(watched.region, self.region_parts() if self.region_parts else {}, now),
            *disk_checks(disk, watched.home, now),
            *process_checks(self.readiness, self.vital.dead(), now),
        ]
        health = Health(service_id=self._service_id, release=version("relight"), checks=tuple(checks))
        self.latest, self._latest_at = health, time.monotonic()
        return health

    async def _lag(self, at: Place | None, stream: StreamLook) -> Lag | None:
        if at is None or stream.last_seq is None:
            return None
        waiting_since = None
        if stream.last_seq > at.seq:
            try:
                waiting_since = await first_after(self.watched.client, at.seq)
                if waiting_since is None:  # what stood there was taken away: nothing waits
                    return Lag(events=0, seconds=0.0, stood_still_s=0.0)
            except TRANSIENT:
                pass
        return lag(at, stream, waiting_since)


class _InThread(Generic[T]):
    """A look at the disk; while one hangs, no other is begun."""

    def __init__(self, look: Callable[[], T]) -> None:
        self._look = look
        self._running: asyncio.Task[T] | None = None

    async def look(self) -> T | None:
        """None: not within `LOOK_S`."""
        if self._running is None:
            self._running = asyncio.create_task(asyncio.to_thread(self._look))
        done, _ = await asyncio.wait([self._running], timeout=LOOK_S)
        if not done:
            return None
        running, self._running = self._running, None
        return running.result()


async def _nothing() -> None:
    return None
