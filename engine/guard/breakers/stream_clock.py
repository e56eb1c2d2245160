"""Whether a process's clock may be gone by: compared with the stream's, which all of a fleet share."""

import asyncio
from typing import Self

from nats.aio.client import Client

from relight.engine.clock import Clock
from relight.engine.errors import ControlError, Unreachable
from relight.engine.health.stream import look_at_stream
from relight.events.catalog import CLOCK_TOLERANCE_MS


class StreamClock:
    """Compared once: how far the own clock has jumped since, the loop's tells."""

    def __init__(self, clock: Clock, ahead_s: float) -> None:
        self._clock = clock
        self._apart_s = ahead_s - self._past_the_loops_s()

    @classmethod
    async def compared(cls, client: Client, clock: Clock) -> Self:
        """In the loop in which it is used. Raises `Unreachable`."""
        seen = await look_at_stream(client, clock)
        if seen.offset_ms is None:
            raise Unreachable(seen.failure or "the stream does not say what time it is")
        return cls(clock, -seen.offset_ms / 1_000)

    def check(self) -> None:
        """Raises `ControlError` where the own clock is too far ahead.

        To such a process every deadline seems over: it would take probes from whoever has them, in rulings that nobody
        can believe.
        """
        ahead_s = self._apart_s + self._past_the_loops_s()
        if ahead_s * 1_000 > CLOCK_TOLERANCE_MS:
            raise ControlError(
                f"this process's clock is {ahead_s:.0f} s ahead of the stream's, so it follows no ruling and makes "
                "none: correct the clock"
            )

    def _past_the_loops_s(self) -> float:
        return self._clock.now_us() / 1_000_000 - asyncio.get_running_loop().time()
