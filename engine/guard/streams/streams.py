"""Puts a watcher under a streamed response: a stream that fails before its first delta goes on from another one."""

import asyncio
from asyncio import current_task
from collections.abc import AsyncIterator, Iterator
from threading import get_ident

import httpx2

from relight.engine.clock import Clock
from relight.engine.errors import DeadlineExceeded
from relight.engine.guard.calls.cutting import THREAD_ALARMS
from relight.engine.guard.facts import Failure
from relight.engine.guard.streams.bodies import AsyncBody, Body
from relight.engine.guard.streams.chunk_waits import TaskWait, ThreadWait
from relight.engine.guard.streams.watched import AsyncWatcher, Watched, Watcher
from relight.engine.guard.streams.watching import Expected, How, StreamEnd

__all__ = ["AsyncWatchedStream", "AsyncWatcher", "Expected", "WatchedStream", "Watcher", "watch_async", "watch_sync"]


def watch_sync(
    response: httpx2.Response,
    watcher: Watcher,
    clock: Clock,
    *,
    deadline_us: int | None = None,
    keep_bytes: int = 0,
    expects: Expected = Expected.EVENTS,
) -> None:
    """Watches the body of `response` (status 200, unread) from now on; the response stays the same object.

    At `deadline_us` (Unix microseconds) the wait for a chunk ends in `DeadlineExceeded`. `keep_bytes`: a body of up to
    that size is kept for its `StreamEnd`. Only `Expected.EVENTS` are held back: of others nothing but a failure before
    the first byte asks for another response. A body that has been read already is looked through at once.
    """
    watched = WatchedStream(response, watcher, clock, deadline_us, keep_bytes, expects=expects)
    if not watched.told_at_once(response):
        watched.attach(response)


def watch_async(
    response: httpx2.Response,
    watcher: AsyncWatcher,
    clock: Clock,
    *,
    deadline_us: int | None = None,
    keep_bytes: int = 0,
    expects: Expected = Expected.EVENTS,
) -> None:
    """`watch_sync` for the response of an async client."""
    watched = AsyncWatchedStream(response, watcher, clock, deadline_us, keep_bytes, expects=expects)
    if not watched.told_at_once(response):
        watched.attach(response)


class WatchedStream(Watched[Watcher], httpx2.SyncByteStream):
    """The body of a response of a sync client."""

    def attach(self, response: httpx2.Response) -> None:
        self._body = Body.of(response)
        response.stream = self

    def __iter__(self) -> Iterator[bytes]:
        alarm = None if self._deadline_us is None else ThreadWait()
        try:
            if alarm is not None:
                THREAD_ALARMS.set(alarm, self._left_s())
            held, end = self._beginning(alarm)
            yield from held
            if end is None:
                watch = self._watch
                pending, telling, lots = watch.pending, watch.telling, watch.lots
                if alarm is not None:
                    self._wait(alarm)
                for chunk in self._body.chunks:
                    pending.append(chunk)
                    if len(pending) >= lots or chunk.startswith(telling):
                        watch.settle()
                    if alarm is None:
                        yield chunk
                    else:
                        alarm.thread = 0
                        yield chunk
                        if alarm.fired:
                            raise self._too_late()
                        alarm.thread = get_ident()
                end = self._clean_end() if alarm is None else self._end_in_time(alarm)
        except BaseException as raised:
            error = self._too_late(raised) if alarm is not None and alarm.cut(raised) else raised
            end = self._failed(error)
            self._tell(end)
            if end.how is How.COMPLETED and isinstance(error, Exception):
                return  # after message_stop nothing can be missed
            if error is not raised:
                raise error from raised
            raise
        finally:
            if alarm is not None:
                alarm.thread = 0
                THREAD_ALARMS.clear(alarm)
        self._tell(end)
        if end.error is not None:
            raise end.error

    def close(self) -> None:
        self._closed = True
        try:
            self._body.close()
        finally:
            self._tell(self._watch.end(How.ABANDONED, Failure.ABANDONED))

    def _beginning(self, alarm: ThreadWait | None) -> tuple[list[bytes], StreamEnd | None]:
        """What may be handed out; and, where nothing can follow it, how the last attempt ended."""
        while True:
            held: list[bytes] = []
            end = self._until_ready(held, alarm)
            if end is None:
                return held, None
            self._body.close()
            self._check_open()
            response = self._again(end)
            if response is None:
                self._check_open()
                return held, self._give_up(end)
            self._body = Body.whole(response)
            self._went_on(response)
            if self._closed:
                self._body.close()
                raise httpx2.StreamClosed()

    def _until_ready(self, held: list[bytes], alarm: ThreadWait | None) -> StreamEnd | None:
        watch = self._watch
        end: StreamEnd | None
        try:
            if alarm is not None:
                self._wait(alarm)
            for chunk in self._body.chunks:
                held.append(chunk)
                watch.pending.append(chunk)
                watch.settle()
                if watch.ready or watch.failure is not None:
                    break
                if alarm is not None:
                    self._wait(alarm)
        except DeadlineExceeded:
            raise
        except Exception as error:
            if alarm is not None and alarm.cut(error):
                raise
            end = self._failed(error)
        else:
            end = self._begun()
            if end is not None and alarm is not None:
                self._end_in_time(alarm)
        if alarm is not None:
            alarm.thread = 0
        return end

    def _wait(self, alarm: ThreadWait) -> None:
        if alarm.fired:
            raise self._too_late()
        alarm.thread = get_ident()

    def _end_in_time(self, alarm: ThreadWait) -> StreamEnd:
        """A connection that was cut may look like one that the server closed in order."""
        if alarm.fired and self._watch.cut_short:
            raise self._too_late()
        return self._clean_end()

    def _again(self, end: StreamEnd) -> httpx2.Response | None:
        try:
            return self._watcher.again(end)
        except BaseException as error:
            self._tell(self._not_again(end, error))
            raise


class AsyncWatchedStream(Watched[AsyncWatcher], httpx2.AsyncByteStream):
    """The body of a response of an async client."""

    def attach(self, response: httpx2.Response) -> None:
        self._loop = asyncio.get_running_loop()
        self._body = AsyncBody.of(response)
        self._unread: AsyncBody | None = self._body
        response.stream = self

    def __del__(self) -> None:
        super().__del__()
        # Nothing of it ran, so the loop finds nothing to close, and the connection would never be free again.
        if (unread := getattr(self, "_unread", None)) is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_close, unread)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._unread = None
        alarm = None if self._deadline_us is None else TaskWait(self._left_s())
        try:
            held, end = await self._beginning(alarm)
            for chunk in held:
                yield chunk
            if end is None:
                watch = self._watch
                pending, telling, lots = watch.pending, watch.telling, watch.lots
                if alarm is not None:
                    self._wait(alarm)
                async for chunk in self._body.chunks:
                    pending.append(chunk)
                    if len(pending) >= lots or chunk.startswith(telling):
                        watch.settle()
                    if alarm is None:
                        yield chunk
                    else:
                        alarm.waits = None
                        yield chunk
                        if alarm.rang:
                            raise self._too_late()
                        alarm.waits = current_task(alarm.loop)
                end = self._clean_end()
        except BaseException as raised:
            error = self._too_late(raised) if alarm is not None and alarm.caught(raised) else raised
            end = self._failed(error)
            self._tell(end)
            if end.how is How.COMPLETED and isinstance(error, Exception):
                return  # after message_stop nothing can be missed
            if error is not raised:
                raise error from raised
            raise
        finally:
            if alarm is not None:
                alarm.stop()
            await self._body.leave()
        self._tell(end)
        if end.error is not None:
            raise end.error

    async def aclose(self) -> None:
        self._unread = None
        self._closed = True
        try:
            await self._body.aclose()
        finally:
            self._tell(self._watch.end(How.ABANDONED, Failure.ABANDONED))

    async def _beginning(self, alarm: TaskWait | None) -> tuple[list[bytes], StreamEnd | None]:
        while True:
            held: list[bytes] = []
            end = await self._until_ready(held, alarm)
            if end is None:
                return held, None
            await self._body.leave()
            await self._body.aclose()
            self._check_open()
            response = await self._again(end)
            if response is None:
                self._check_open()
                return held, self._give_up(end)
            self._body = AsyncBody.whole(response)
            self._went_on(response)
            if self._closed:
                await self._body.aclose()
                raise httpx2.StreamClosed()

    async def _until_ready(self, held: list[bytes], alarm: TaskWait | None) -> StreamEnd | None:
        watch = self._watch
        end: StreamEnd | None
        try:
            if alarm is not None:
                self._wait(alarm)
            async for chunk in self._body.chunks:
                held.append(chunk)
                watch.pending.append(chunk)
                watch.settle()
                if watch.ready or watch.failure is not None:
                    break
                if alarm is not None:
                    self._wait(alarm)
        except DeadlineExceeded:
            raise
        except Exception as error:
            end = self._failed(error)
        else:
            end = self._begun()
        if alarm is not None:
            alarm.waits = None
        return end

    async def _again(self, end: StreamEnd) -> httpx2.Response | None:
        try:
            return await self._watcher.again(end)
        except BaseException as error:
            self._tell(self._not_again(end, error))
            raise

    def _wait(self, alarm: TaskWait) -> None:
        if alarm.rang:
            raise self._too_late()
        alarm.waits = current_task(alarm.loop)


_closings: set[asyncio.Task[None]] = set()
"""The loop itself holds no task."""


def _close(body: AsyncBody) -> None:
    closing = asyncio.ensure_future(body.aclose())
    _closings.add(closing)
    closing.add_done_callback(_closings.discard)
