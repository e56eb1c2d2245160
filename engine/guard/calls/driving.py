"""Does what the core of a call asks for: a driver for each kind of client."""

import asyncio
from collections.abc import Awaitable, Generator
from contextlib import suppress
from types import coroutine
from typing import Any, cast
from weakref import WeakKeyDictionary

import httpx2
from anthropic import APIResponse, AsyncAPIResponse
from anthropic._base_client import BaseClient

from relight.engine.clock import Clock
from relight.engine.guard.calls.alarms import LoopAlarms
from relight.engine.guard.calls.cutting import THREAD_ALARMS
from relight.engine.guard.calls.steps import AnyResponse, HandOut, Pause, Release, Send, Steps
from relight.engine.guard.calls.waits import Waits
from relight.engine.guard.streams.streams import watch_async, watch_sync
from relight.engine.guard.streams.watching import StreamEnd

KEPT_BYTES = 1 << 20
"""Of a stream's body, for the journal; of a longer one it has the digest."""


class SyncDriver:
    """Drives calls of synchronous clients, from any thread."""

    def __init__(self, clock: Clock, waits: Waits) -> None:
        self._clock = clock
        self._waits = waits

    def drive(self, steps: Steps, *, stream_until_us: int | None) -> APIResponse[Any]:
        came = self.run(steps)
        if not isinstance(came, HandOut):
            return cast("APIResponse[Any]", came)
        response = came.take()
        watch_sync(
            response.http_response,
            _SyncWatcher(self, steps, came),
            self._clock,
            deadline_us=stream_until_us,
            keep_bytes=KEPT_BYTES,
            expects=came.expects,
        )
        return cast("APIResponse[Any]", response)

    def run(self, steps: Steps) -> HandOut | AnyResponse | None:
        """Until a stream is to be handed out, or all is over."""
        step = _next(steps)
        while True:
            try:
                if type(step) is Send:
                    self.send(step)
                elif type(step) is Pause:
                    self._waits.sleep(step.seconds)
                elif type(step) is Release:
                    with suppress(Exception):  # it failed anyway, and its connection with it
                        step.response.close()
                else:
                    return cast("HandOut | AnyResponse | None", step)
            except BaseException as error:
                step = _thrown(steps, error)
            else:
                step = _next(steps)

    def send(self, step: Send) -> None:
        """One attempt. What its caller is told meanwhile is raised: that it is to end."""
        THREAD_ALARMS.set(step, step.left_s)
        try:
            response = cast("APIResponse[Any]", step.call_next(step.request))
            if step.came(response):
                try:
                    step.parsed = response.parse()
                except Exception as error:
                    step.unparsed = error
        except Exception as error:
            step.error = error
        finally:
            THREAD_ALARMS.clear(step)


class _SyncWatcher:
    """Goes on with a call whose stream was handed out."""

    __slots__ = ("_driver", "_out", "_steps")

    def __init__(self, driver: SyncDriver, steps: Steps, out: HandOut) -> None:
        self._driver = driver
        self._steps = steps
        self._out = out

    def again(self, end: StreamEnd) -> httpx2.Response | None:
        self._out.end = end
        came = self._driver.run(self._steps)
        if isinstance(came, HandOut):
            self._out = came
            return None if came.nothing else came.take().http_response
        http = _http(came)
        if not http.is_closed:
            http.read()
        return _accepted(came, http)

    def ended(self, end: StreamEnd) -> None:
        _tell_end(self._steps, self._out, end)


class AsyncDriver:
    """Drives calls of asynchronous clients, in any loop of asyncio."""

    def __init__(self, clock: Clock, waits: Waits) -> None:
        self._clock = clock
        self._waits = waits
        self._alarms: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopAlarms] = WeakKeyDictionary()
        self._last: tuple[asyncio.AbstractEventLoop, LoopAlarms] | None = None

    async def drive(self, steps: Steps, *, stream_until_us: int | None) -> AsyncAPIResponse[Any]:
        came = await self.run(steps)
        if not isinstance(came, HandOut):
            return cast("AsyncAPIResponse[Any]", came)
        response = came.take()
        watch_async(
            response.http_response,
            _AsyncWatcher(self, steps, came),
            self._clock,
            deadline_us=stream_until_us,
            keep_bytes=KEPT_BYTES,
            expects=came.expects,
        )
        return cast("AsyncAPIResponse[Any]", response)

    async def run(self, steps: Steps) -> HandOut | AnyResponse | None:
        """Until a stream is to be handed out, or all is over."""
        step = _next(steps)
        while True:
            try:
                if type(step) is Send:
                    await self.send(step)
                elif type(step) is Pause:
                    await self._waits.sleep_async(step.seconds)
                elif type(step) is Release:
                    with suppress(Exception):  # it failed anyway, and its connection with it
                        await step.response.aclose()
                else:
                    return cast("HandOut | AnyResponse | None", step)
            except BaseException as error:
                step = _thrown(steps, error)
            else:
                step = _next(steps)

    @coroutine
    def send(self, step: Send) -> Generator[Any, Any, None]:
        """One attempt. What its caller is told meanwhile is raised: that it is cancelled.

        A generator, for it has to see when the attempt waits for the first time: nothing before can be ended, and to
        ask asyncio for its loop and task takes as long as all else here. It is done while the request is on its way.
        """
        try:
            going = cast("Awaitable[AsyncAPIResponse[Any]]", step.call_next(step.request)).__await__()
            try:
                waits = next(going)
            except StopIteration as came:
                response = came.value
            else:
                response = yield from self._waited(step, going, waits)
            if step.came(response):
                try:
                    step.parsed = yield from response.parse()
                except Exception as error:
                    step.unparsed = error
        except asyncio.CancelledError:
            if not step.caught():
                raise
            step.error = TimeoutError()
        except Exception as error:
            step.error = error

    def _waited(self, step: Send, going: Generator[Any, Any, Any], waits: object) -> Generator[Any, Any, Any]:
        """Goes on with what waits, and ends it at its deadline."""
        alarms = self._alarms_here()
        alarms.set(step, step.left_s)
        try:
            while True:
                try:
                    yield waits
                except BaseException as error:
                    try:
                        waits = going.throw(error)
                    except StopIteration as came:
                        return came.value
                else:
                    return (yield from going)
        finally:
            alarms.clear(step)

    def _alarms_here(self) -> LoopAlarms:
        loop = asyncio.get_running_loop()
        if (last := self._last) is not None and last[0] is loop:
            return last[1]
        if (alarms := self._alarms.get(loop)) is None:
            alarms = self._alarms[loop] = LoopAlarms(loop)
        self._last = (loop, alarms)
        return alarms


class _AsyncWatcher:
    """Goes on with a call whose stream was handed out."""

    __slots__ = ("_driver", "_out", "_steps")

    def __init__(self, driver: AsyncDriver, steps: Steps, out: HandOut) -> None:
        self._driver = driver
        self._steps = steps
        self._out = out

    async def again(self, end: StreamEnd) -> httpx2.Response | None:
        self._out.end = end
        came = await self._driver.run(self._steps)
        if isinstance(came, HandOut):
            self._out = came
            return None if came.nothing else came.take().http_response
        http = _http(came)
        if not http.is_closed:
            await http.aread()
        return _accepted(came, http)

    def ended(self, end: StreamEnd) -> None:
        _tell_end(self._steps, self._out, end)


def _next(steps: Steps) -> object:
    """The next step, or what the core returned."""
    try:
        return next(steps)
    except StopIteration as stop:
        return stop.value


def _thrown(steps: Steps, error: BaseException) -> object:
    try:
        return steps.throw(error)
    except StopIteration as stop:
        return stop.value


def _tell_end(steps: Steps, out: HandOut, end: StreamEnd) -> None:
    out.end, out.over = end, True
    # The call may be over already, by what `again` raised.
    with suppress(StopIteration):
        next(steps)


def _http(came: AnyResponse | None) -> httpx2.Response:
    assert came is not None
    return came.http_response


def _accepted(came: AnyResponse | None, http: httpx2.Response) -> httpx2.Response:
    """What a stream goes on from. Raises what the SDK raises for an answer of another status."""
    if http.is_success:
        return http
    client = getattr(came, "_client", None)
    assert isinstance(client, BaseClient)
    raise client._make_status_error_from_response(http) from None
