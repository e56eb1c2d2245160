"""Puts a watcher under a streamed response: a stream that fails before its first delta goes on from another one."""

from collections.abc import AsyncIterator, Iterator

import httpx2

from relight.engine.clock import Clock
from relight.engine.errors import DeadlineExceeded
from relight.engine.guard.alarm import Alarm
from relight.engine.guard.bodies import AsyncBody, Body
from relight.engine.guard.facts import Failure
from relight.engine.guard.watched import AsyncWatcher, Watched, Watcher
from relight.engine.guard.watching import Expected, How, StreamEnd

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

    `deadline_us` (Unix microseconds) is looked at between chunks. `keep_bytes`: a body up to this size is kept for its
    `StreamEnd`. Only `Expected.EVENTS` are held back: of others nothing but a failure before the first byte asks for
    another response. A body that has been read already is looked through at once.
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
    """`watch_sync` for the response of an async client; here the wait for a chunk ends at the deadline, too."""
    watched = AsyncWatchedStream(response, watcher, clock, deadline_us, keep_bytes, expects=expects)
    if not watched.told_at_once(response):
        watched.attach(response)


class WatchedStream(Watched[Watcher], httpx2.SyncByteStream):
    """The body of a response of a sync client."""

    def attach(self, response: httpx2.Response) -> None:
        self._body = Body.of(response)
        response.stream = self

    def __iter__(self) -> Iterator[bytes]:
        try:
            held, end = self._beginning()
            yield from held
            if end is None:
                feed, now_us, deadline_us = self._watch.feed, self._clock.now_us, self._deadline_us
                for chunk in self._body.chunks:
                    feed(chunk)
                    yield chunk
                    if deadline_us is not None and now_us() >= deadline_us:
                        raise self._too_late()
                end = self._clean_end()
        except BaseException as error:
            end = self._failed(error)
            self._tell(end)
            if end.how is How.COMPLETED and isinstance(error, Exception):
                return  # after message_stop nothing can be missed
            raise
        self._tell(end)
        if end.error is not None:
            raise end.error

    def close(self) -> None:
        self._closed = True
        try:
            self._body.close()
        finally:
            self._tell(self._watch.end(How.ABANDONED, Failure.ABANDONED))

    def _beginning(self) -> tuple[list[bytes], StreamEnd | None]:
        """What may be handed out; and, where nothing can follow it, how the last attempt ended."""
        while True:
            held: list[bytes] = []
            end = self._until_ready(held)
            if end is None:
                return held, None
            self._body.close()
            response = self._again(end)
            if response is None:
                return held, self._give_up(end)
            self._body = Body.whole(response)
            self._went_on(response)
            if self._closed:
                self._body.close()
                raise httpx2.StreamClosed()

    def _until_ready(self, held: list[bytes]) -> StreamEnd | None:
        watch = self._watch
        try:
            for chunk in self._body.chunks:
                held.append(chunk)
                watch.feed(chunk)
                if watch.ready or watch.failure is not None:
                    break
                if self._deadline_us is not None and self._clock.now_us() >= self._deadline_us:
                    raise self._too_late()
        except DeadlineExceeded:
            raise
        except Exception as error:
            return self._failed(error)
        return self._begun()

    def _again(self, end: StreamEnd) -> httpx2.Response | None:
        try:
            return self._watcher.again(end)
        except BaseException as error:
            self._tell(self._not_again(end, error))
            raise


class AsyncWatchedStream(Watched[AsyncWatcher], httpx2.AsyncByteStream):
    """The body of a response of an async client."""

    def attach(self, response: httpx2.Response) -> None:
        self._body = AsyncBody.of(response)
        response.stream = self

    async def __aiter__(self) -> AsyncIterator[bytes]:
        alarm = None if self._deadline_us is None else Alarm((self._deadline_us - self._clock.now_us()) / 1e6)
        try:
            held, end = await self._beginning(alarm)
            for chunk in held:
                yield chunk
            if end is None:
                feed = self._watch.feed
                if alarm is not None:
                    self._wait(alarm)
                async for chunk in self._body.chunks:
                    if alarm is not None:
                        alarm.rest()
                    feed(chunk)
                    yield chunk
                    if alarm is not None:
                        self._wait(alarm)
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
        self._closed = True
        try:
            await self._body.aclose()
        finally:
            self._tell(self._watch.end(How.ABANDONED, Failure.ABANDONED))

    async def _beginning(self, alarm: Alarm | None) -> tuple[list[bytes], StreamEnd | None]:
        while True:
            held: list[bytes] = []
            end = await self._until_ready(held, alarm)
            if end is None:
                return held, None
            await self._body.leave()
            await self._body.aclose()
            response = await self._again(end)
            if response is None:
                return held, self._give_up(end)
            self._body = AsyncBody.whole(response)
            self._went_on(response)
            if self._closed:
                await self._body.aclose()
                raise httpx2.StreamClosed()

    async def _until_ready(self, held: list[bytes], alarm: Alarm | None) -> StreamEnd | None:
        watch = self._watch
        end: StreamEnd | None
        try:
            if alarm is not None:
                self._wait(alarm)
            async for chunk in self._body.chunks:
                held.append(chunk)
                watch.feed(chunk)
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
            alarm.rest()
        return end

    async def _again(self, end: StreamEnd) -> httpx2.Response | None:
        try:
            return await self._watcher.again(end)
        except BaseException as error:
            self._tell(self._not_again(end, error))
            raise

    def _wait(self, alarm: Alarm) -> None:
        if alarm.rang:
            raise self._too_late()
        alarm.guard()
