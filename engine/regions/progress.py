"""How far this region is: what its own copy of the stream holds, and what its tables have of it."""

import asyncio
from collections.abc import Mapping

from pydantic import JsonValue

from relight.engine.errors import RelightError
from relight.engine.log.copies import copy_of
from relight.engine.log.reader import TRANSIENT
from relight.engine.log.topology import REQUEST_TIMEOUT_S, STREAM
from relight.engine.recorder.recorder import Recorder
from relight.engine.tables.projector import Projector

LOOK_EVERY_S = 0.5
NEAR_EVENTS = 1_000
"""Behind by so many at most, a region counts as caught up: under load the last ones are always on their way."""


class Progress:
    """`fields` goes out with every heartbeat. `monitors`: addresses of this region's own NATS servers, if known."""

    def __init__(self, recorder: Recorder, projector: Projector | None, monitors: tuple[str, ...]) -> None:
        self._recorder = recorder
        self._projector = projector
        self._monitors = monitors
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
        if self._last_seq is None or (projected := self._projected_seq()) is None:
            return False
        behind = self._last_seq - min(projected, self._last_seq if self._copy_seq is None else self._copy_seq)
        return behind <= NEAR_EVENTS

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
