"""The deadline of one async stream."""

import asyncio


class Alarm:
    """Cancels a wait when the deadline comes. One timer for all waits of a stream: `asyncio.timeout` costs one each."""

    def __init__(self, delay_s: float) -> None:
        self.rang = False
        self._task: asyncio.Task[object] | None = None
        """Who waits."""
        self._cancelling = 0
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._ring)

    def guard(self) -> None:
        """The current task begins to wait; it looks at `rang` before."""
        self._task = asyncio.current_task()

    def rest(self) -> None:
        """It waits no more."""
        self._task = None

    def caught(self, error: BaseException) -> bool:
        """Whether `error` is the cancellation that this alarm asked for, and nobody else asked for one."""
        task, self._task = self._task, None
        if not self.rang or task is None or not isinstance(error, asyncio.CancelledError):
            return False
        return task.uncancel() <= self._cancelling

    def stop(self) -> None:
        self._task = None
        self._timer.cancel()

    def _ring(self) -> None:
        self.rang = True
        if self._task is not None:
            self._cancelling = self._task.cancelling()
            self._task.cancel()
