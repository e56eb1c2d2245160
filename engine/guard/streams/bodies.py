"""The body of one response, its content encoding taken off, read by one iterator and closed once."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeVar

import httpx2

from relight.engine.errors import DeadlineExceeded
from relight.engine.guard.facts import Failure
from relight.engine.guard.streams.eventstream import EventStreamFrames
from relight.engine.guard.streams.frames import AWS, SSE, Frames, NoFrames
from relight.engine.guard.streams.sse import SseFrames

StreamT = TypeVar("StreamT", httpx2.SyncByteStream, httpx2.AsyncByteStream)

_ENCODING_HEADERS = ("content-encoding", "content-length")


def frames_of(response: httpx2.Response) -> Frames:
    content_type = _content_type(response)
    if content_type == SSE:
        return SseFrames()
    return EventStreamFrames() if content_type == AWS else NoFrames(content_type)


def failure_of(error: Exception) -> Failure:
    """How reading a body failed."""
    match error:
        case DeadlineExceeded():
            return Failure.DEADLINE
        case httpx2.TimeoutException():
            return Failure.TIMEOUT
        case httpx2.DecodingError():
            return Failure.MALFORMED
        case httpx2.TransportError() | OSError():
            return Failure.CONNECTION
        case _:
            return Failure.UNKNOWN


def drop_encoding(headers: httpx2.Headers) -> None:
    """For a body that is handed out decoded."""
    for name in _ENCODING_HEADERS:
        headers.pop(name, None)


class Body:
    """`chunks` may be left and taken up again; closing is idempotent and frees the connection."""

    def __init__(self, chunks: Iterator[bytes], close: Callable[[], None]) -> None:
        self.chunks = chunks
        self._close: Callable[[], None] | None = close

    @classmethod
    def of(cls, response: httpx2.Response) -> "Body":
        """Of one that is going to be read through what takes the place of its stream."""
        if not _encoded(response):
            stream = _stream_of(response, httpx2.SyncByteStream, "an async client's: watch it with watch_async")
            return cls(iter(stream), stream.close)
        inner = _inner(response)
        return cls(inner.iter_bytes(), inner.close)

    @classmethod
    def whole(cls, response: httpx2.Response) -> "Body":
        """Of a response that nobody else reads."""
        return cls(response.iter_bytes(), response.close)

    def close(self) -> None:
        close, self._close = self._close, None
        if close is not None:
            close()


class AsyncBody:
    """`Body` of an async client."""

    def __init__(self, chunks: AsyncIterator[bytes], close: Callable[[], Awaitable[None]]) -> None:
        self.chunks = chunks
        self._close: Callable[[], Awaitable[None]] | None = close

    @classmethod
    def of(cls, response: httpx2.Response) -> "AsyncBody":
        if not _encoded(response):
            stream = _stream_of(response, httpx2.AsyncByteStream, "a sync client's: watch it with watch_sync")
            return cls(aiter(stream), stream.aclose)
        inner = _inner(response)
        return cls(inner.aiter_bytes(), inner.aclose)

    @classmethod
    def whole(cls, response: httpx2.Response) -> "AsyncBody":
        return cls(response.aiter_bytes(), response.aclose)

    async def aclose(self) -> None:
        close, self._close = self._close, None
        if close is not None:
            await close()

    async def leave(self) -> None:
        """Ends the reading, in the task that read: the event loop would else do it later, in one of its own."""
        if isinstance(self.chunks, AsyncGenerator):
            await self.chunks.aclose()


def _stream_of(response: httpx2.Response, kind: type[StreamT], otherwise: str) -> StreamT:
    stream = response.stream
    if not isinstance(stream, kind):
        raise TypeError(f"the response of {response.request.url.host} is {otherwise}")
    return stream


def _content_type(response: httpx2.Response) -> str:
    content_type: str = response.headers.get("content-type", "")
    return content_type.partition(";")[0].strip().lower()


def _encoded(response: httpx2.Response) -> bool:
    encoding: str = response.headers.get("content-encoding", "")
    return encoding.strip().lower() not in ("", "identity")


def _inner(response: httpx2.Response) -> httpx2.Response:
    """Its body is decoded by httpx2, as that of `response` would have been, which has none to decode any more."""
    inner = httpx2.Response(
        response.status_code, headers=response.headers, stream=response.stream, request=response.request
    )
    drop_encoding(response.headers)
    return inner
