"""How far this region is: what its own copy of the stream holds, and what its tables have of it."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from relight.engine.errors import RelightError
from relight.engine.health.spools import exposed_spools
from relight.engine.log.copies import copy_of
from relight.engine.log.reader import TRANSIENT
from relight.engine.log.topology import REQUEST_TIMEOUT_S, STREAM
from relight.engine.recorder.recorder import Recorder
from relight.engine.tables.projector import Projector
from relight.events.failover import StandIn

LOOK_EVERY_S = 0.5
NEAR_EVENTS = 1_000
"""Behind by so many at most, a region counts as caught up: under load the last ones are always on their way."""

MOVING_S = 2.0
"""What is younger than this in a spool is on its way."""


class Progress:
    """`fields` goes out with every heartbeat. `monitors`: addresses of this region's own NATS servers, if known."""

    def __init__(
        self, recorder: Recorder, projector: Projector | None, monitors: tuple[str, ...], *, spools: Path
    ) -> None:
        self._recorder = recorder
        self._projector = projector
        self._monitors = monitors
        self._spools = spools
        self._switched: tuple[str, int] | None = None
        self._last_seq: int | None = None
        self._copy_seq: int | None = None
        self.failure: str | None = "did not look yet"

    def fields(self) -> Mapping[str, JsonValue]:
        """`last_seq` of the stream, `copy_seq` of this region's copy, `projected_seq` of its tables; null: unknown."""
        return {
            "last_seq": self._last_seq,
            "copy_seq": self._copy_seq,
            "projected_seq": self._projected_seq(),
            "caught_up": self.caught_up,
        }

    @property
    def caught_up(self) -> bool:
        """Whether this region could take over now."""
        return self._last_seq is not None and self._has(max(0, self._last_seq - NEAR_EVENTS))

    async def ready(self, one: StandIn) -> bool:
        """Whether this region, a failover's target, has all that the log held when that was first asked."""
        if self._last_seq is None:
            return False
        if self._switched is None or self._switched[0] != one.failover:
            self._switched = (one.failover, self._last_seq)
        return self._has(self._switched[1])

    async def may_return(self, one: StandIn) -> bool:
        """Whether this region has all that the others have, and others all that its spools held."""
        if not self.caught_up:
            return False
        now_ms = self._recorder.clock.now_us() // 1_000
        exposed = await asyncio.to_thread(exposed_spools, self._spools, now_ms=now_ms)
        return not exposed.unreadable and (exposed.oldest_s is None or exposed.oldest_s < MOVING_S)

    def _has(self, seq: int) -> bool:
        projected = self._projected_seq()
        return projected is not None and min(projected, seq if self._copy_seq is None else self._copy_seq) >= seq

    def _projected_seq(self) -> int | None:
        projector = self._projector
        return None if projector is None or projector.position is None else projector.position.seq

    async def run(self) -> None:
        while True:
            try:
                await self._look()
                self.failure = None
            except (RelightError, *TRANSIENT) as error:
                self._last_seq = None
                self.failure = str(error) or type(error).__name__
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self) -> None:
        client = await self._recorder.client()
        copies = await asyncio.gather(*(asyncio.to_thread(copy_of, url) for url in self._monitors))
        held = [copy.last_seq for copy in copies if copy is not None]
        self._copy_seq = max(held, default=None)
        info = await client.jetstream(timeout=REQUEST_TIMEOUT_S).stream_info(STREAM)
        self._last_seq = info.state.last_seq
