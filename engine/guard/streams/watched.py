"""Who is asked and told about a streamed response, and what the sync and the async stream have in common."""

import asyncio
import weakref
from collections.abc import Callable
from datetime import timedelta
from typing import Generic, Protocol, TypeVar

import httpx2
from anthropic import APIConnectionError

from relight.engine.clock import Clock
from relight.engine.errors import DeadlineExceeded
from relight.engine.guard.facts import Failure
from relight.engine.guard.streams.bodies import drop_encoding, failure_of, frames_of
from relight.engine.guard.streams.watching import Expected, How, StreamEnd, Watch


class Told(Protocol):
    def ended(self, end: StreamEnd) -> None:
        """Told exactly once, when nothing more will be handed out; `end` is that of the last attempt.

        Never raises and takes no lock that its own thread may hold: of a dropped stream the garbage collector tells it,
        at any moment and in any thread. It holds no reference to the response, which would else not be dropped.
        """


class Watcher(Told, Protocol):
    """Who asked for a response that is watched."""

    def again(self, end: StreamEnd) -> httpx2.Response | None:
        """Another response to go on from, status 200 and its body unread: `end` came before anything was handed out.

        The failed attempt's connection has been given back. None: what came and how it failed is handed out. What is
        raised goes to the caller instead, and is the `error` of `ended`.
        """


class AsyncWatcher(Told, Protocol):
    """`Watcher` of an async client."""

    async def again(self, end: StreamEnd) -> httpx2.Response | None: ...


WatcherT = TypeVar("WatcherT", bound=Told)


class Watched(Generic[WatcherT]):
    """What both kinds have in common: which attempt is watched, and that its end is told once."""

    def __init__(
        self,
        response: httpx2.Response,
        watcher: WatcherT,
        clock: Clock,
        deadline_us: int | None,
        keep_bytes: int,
        *,
        expects: Expected,
    ) -> None:
        # Weak: a cycle would leave it to the garbage collector to close a dropped stream.
        self._response = weakref.ref(response)
        self._request = response.request
        self._original = response.stream
        self._watcher = watcher
        self._clock = clock
        self._deadline_us = deadline_us
        self._keep_bytes = keep_bytes
        self._expects = expects
        self._closed = False
        self._watch = self._new_watch(response)
        self._untold: list[Callable[[StreamEnd], None]] = [watcher.ended]

    @property
    def elapsed(self) -> timedelta | None:
        """`httpx2.Response.elapsed` reads it here."""
        return getattr(self._original, "elapsed", None)

    @property
    def stream_observer(self) -> object:
        """That of a span which the SDK had ended by this body, as for a response of another client of its."""
        return getattr(self._original, "stream_observer", None)

    def told_at_once(self, response: httpx2.Response) -> bool:
        """A mocked transport's response has been read when it comes, and httpx2 never asks its stream."""
        if not response.is_stream_consumed and not response.is_closed:
            return False
        try:
            self._watch.pending.append(response.content)
        except httpx2.ResponseNotRead:
            self._tell(self._watch.end(How.ABANDONED, Failure.ABANDONED))
        else:
            self._tell(self._clean_end())
        return True

    def __del__(self) -> None:
        if untold := getattr(self, "_untold", None):
            untold.pop()(self._watch.end(How.ABANDONED, Failure.ABANDONED))

    def _new_watch(self, response: httpx2.Response) -> Watch:
        return Watch(
            frames_of(response) if self._expects is Expected.EVENTS else None,
            self._clock.now_us,
            message=self._expects is Expected.MESSAGE,
            digest=self._expects is not Expected.OTHER,
            keep_bytes=self._keep_bytes,
        )

    def _tell(self, end: StreamEnd) -> None:
        try:
            ended = self._untold.pop()  # atomic: a stream may be closed by another thread than reads it
        except IndexError:
            return
        ended(end)

    def _clean_end(self) -> StreamEnd:
        """The body's end came by itself."""
        if self._watch.cut_short:
            return self._watch.end(How.FAILED, Failure.TRUNCATED, self._shortened())
        return self._watch.end(How.COMPLETED)

    def _begun(self) -> StreamEnd | None:
        """None: what came may be handed out. Else how it failed, or that it ended too early."""
        if self._watch.ready:
            return None
        end = self._clean_end()
        return None if end.how is How.COMPLETED else end

    def _failed(self, error: BaseException) -> StreamEnd:
        match error:
            case GeneratorExit():
                return self._watch.end(How.ABANDONED, Failure.ABANDONED)
            case Exception():
                return self._watch.end(How.FAILED, failure_of(error), error)
            case asyncio.CancelledError():
                return self._watch.end(How.ABANDONED, Failure.CANCELLED, error)
            case _:
                return self._watch.end(How.ABANDONED, Failure.ABANDONED, error)

    def _give_up(self, end: StreamEnd) -> StreamEnd:
        """There is no other response: what is held is handed out, then `end.error` raised."""
        if end.error is None and end.error_type is None:  # an `error` event speaks for itself
            end.error = self._shortened()
        self._tell(end)
        return end

    def _check_open(self) -> None:
        """Whoever closed it, from another task or thread than reads it, wants no other response."""
        if self._closed:
            raise httpx2.StreamClosed()

    def _not_again(self, end: StreamEnd, error: BaseException) -> StreamEnd:
        """`again` raised: what it means is for the watcher to say; unless the caller has gone."""
        end.error = error
        if not isinstance(error, Exception):
            end.how = How.ABANDONED
            end.failure = Failure.CANCELLED if isinstance(error, asyncio.CancelledError) else Failure.ABANDONED
        return end

    def _went_on(self, response: httpx2.Response) -> None:
        """Whoever asks for the request id from now on means this one's."""
        self._watch = self._new_watch(response)
        if (shown := self._response()) is not None:
            headers = response.headers.copy()
            drop_encoding(headers)
            shown.headers = headers

    def _left_s(self) -> float:
        """Until the deadline; without one it is not asked."""
        return 0.0 if self._deadline_us is None else (self._deadline_us - self._clock.now_us()) / 1e6

    def _too_late(self, cause: BaseException | None = None) -> DeadlineExceeded:
        late = DeadlineExceeded(
            f"The deadline came while the answer {self._named()} was streaming in: "
            "allow more time, or ask for fewer tokens"
        )
        late.__cause__ = cause
        return late

    def _shortened(self) -> APIConnectionError:
        end = self._watch.end(How.FAILED)
        what = "cannot be read" if end.failure is Failure.MALFORMED else "ended without message_stop"
        return APIConnectionError(
            message=f"The answer {self._named()} {what}, after {end.size_bytes} bytes: "
            "it is not whole, so ask again and do not go by what came of it",
            request=self._request,
        )

    def _named(self) -> str:
        response = self._response()
        headers = httpx2.Headers() if response is None else response.headers
        request_id = headers.get("request-id") or headers.get("x-amzn-requestid")
        if request_id:
            return f"to request {request_id}"
        return f"of {self._request.url.host}{self._request.url.path}"  # the rest of an address may hold a key
