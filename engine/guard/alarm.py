"""The deadline of one async stream."""

import asyncio


class Alarm:
    """Cancels a wait when the deadline comes. One timer for all waits of a stream: `asyncio.timeout` costs one each."""

    def __init__(self, delay_s: float) -> None:
        self.rang = False
        self.waits: asyncio.Task[object] | None = None
        """The task that waits now, if one does."""
        self._cancelling = 0
        self.loop = asyncio.get_running_loop()
        self._timer = self.loop.call_later(delay_s, self._ring)

    def caught(self, error: BaseException) -> bool:
        """Whether `error` is the cancellation that this alarm asked for, and nobody else asked for one."""
        task, self.waits = self.waits, None
        if not self.rang or task is None or not isinstance(error, asyncio.CancelledError):
            return False
        return task.uncancel() <= self._cancelling

    def stop(self) -> None:
        self.waits = None
        self._timer.cancel()

    def _ring(self) -> None:
        self.rang = True
        if self.waits is not None:
            self._cancelling = self.waits.cancelling()
            self.waits.cancel()
