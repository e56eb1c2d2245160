"""An event loop in a thread of its own, which can be replaced when it died or hangs."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from relight.engine.errors import RecorderError
from relight.engine.recorder.receipts import complete

T = TypeVar("T")


class Restarted(RecorderError):
    """The recorder's loop was restarted meanwhile: ask again."""


class LoopThread:
    """Runs `main` until it is stopped, and whatever else is given to it. Used from any thread."""

    def __init__(self, name: str, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._name = name
        self._new_main = main
        self._running: set[Future[Any]] = set()
        self._stopping = False
        self._begin()

    def _begin(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._main = self._loop.create_task(self._new_main())
        self._thread = threading.Thread(target=self._run, args=(self._loop, self._main), name=self._name, daemon=True)
        self._answered = True
        self.missed_beats = 0
        """How often in a row `beat` found the last one unanswered."""

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._stopping or self._thread.is_alive()

    def stop(self, timeout_s: float) -> None:
        """Cancels all that runs and ends the loop. Idempotent."""
        self._stopping = True
        self.call(self._main.cancel)
        self._thread.join(timeout_s)
        self._end_running(RecorderError("the recorder was closed meanwhile"))

    def beat(self) -> None:
        """Asks the loop for a sign of life, and takes note whether the last one came."""
        self.missed_beats = 0 if self._answered else self.missed_beats + 1
        if self._answered:
            self._answered = False
            loop = self._loop
            self.call(lambda: self._answer(loop))

    def _answer(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is self._loop:
            self._answered = True

    def revive(self) -> None:
        """Another loop in place of one that died or hangs; should that one wake up, it ends."""
        self.call(self._main.cancel)
        self._begin()
        self._thread.start()
        self._end_running(Restarted())

    def call(self, callback: Callable[[], object]) -> bool:
        """Runs a function in the loop; False when the loop has ended."""
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            return False
        return True

    def run(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """Runs a coroutine in the loop, in the caller's context. Raises `RecorderError` when the loop has ended."""
        told: Future[T] = Future()
        try:
            inner = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise RecorderError("the recorder is closed: use it inside its `with`") from None
        self._running.add(told)
        told.add_done_callback(self._running.discard)
        told.add_done_callback(lambda waited: inner.cancel() if waited.cancelled() else None)
        inner.add_done_callback(lambda done: self._pass_on(done, told))
        return told

    def _pass_on(self, done: "Future[T]", told: "Future[T]") -> None:
        if done.cancelled():
            complete(told, RecorderError("the recorder was closed meanwhile") if self._stopping else Restarted())
        elif (error := done.exception()) is not None:
            complete(told, error if isinstance(error, Exception) else RecorderError(repr(error)))
        else:
            complete(told, result=done.result())

    def _end_running(self, error: RecorderError) -> None:
        for told in list(self._running):
            complete(told, error)

    def _run(self, loop: asyncio.AbstractEventLoop, main: "asyncio.Task[None]") -> None:
        asyncio.set_event_loop(loop)
        try:
            with suppress(asyncio.CancelledError):
                loop.run_until_complete(main)
        finally:
            if tasks := asyncio.all_tasks(loop):
                for task in tasks:
                    task.cancel()
                loop.run_until_complete(asyncio.wait(tasks, timeout=2))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
