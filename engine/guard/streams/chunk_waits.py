"""The deadline of one stream, whose reader is disturbed only while it waits for a chunk."""

import asyncio

from relight.engine.errors import DeadlineExceeded
from relight.engine.guard.calls.alarms import Alarm


class ThreadWait(Alarm):
    """Set once for a whole stream; `thread` is the one that waits for a chunk now, 0 while none does."""

    __slots__ = ("thread",)

    def __init__(self) -> None:
        self.thread = 0
        self.fired = False

    @property
    def target(self) -> object:
        return self.thread

    @target.setter
    def target(self, thread: object) -> None:
        self.thread = thread if isinstance(thread, int) else 0

    def cut(self, error: BaseException) -> bool:
        """Whether `error` is of a connection that was cut for this."""
        if not self.fired or self.thread == 0:
            return False
        return isinstance(error, Exception) and not isinstance(error, DeadlineExceeded)


class TaskWait:
    """Cancels the task that waits. One timer for all waits of a stream: `asyncio.timeout` costs one each."""

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
