"""Does what the core of a call asks for: a driver for each kind of client."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from inspect import GEN_CLOSED, getgeneratorstate
from typing import Any, cast
from weakref import WeakKeyDictionary

import httpx2
from anthropic import APIResponse, AsyncAPIResponse
from anthropic._base_client import BaseClient

from relight.engine.clock import Clock
from relight.engine.errors import GuardError
from relight.engine.guard.calls.alarms import LoopAlarms
from relight.engine.guard.calls.cutting import THREAD_ALARMS
from relight.engine.guard.calls.steps import AnyResponse, HandOut, Pause, Release, Send, Steps
from relight.engine.guard.calls.waits import Waits
from relight.engine.guard.streams.streams import watch_async, watch_sync
from relight.engine.guard.streams.watching import StreamEnd


class SyncDriver:
    """Drives calls of synchronous clients, from any thread."""

    def __init__(self, clock: Clock, waits: Waits, *, stream_bytes: int) -> None:
        self._clock = clock
        self._waits = waits
        self._stream_bytes = stream_bytes

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
            keep_bytes=self._stream_bytes,
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
                    if step.http is not None and getgeneratorstate(steps) == GEN_CLOSED:
                        step.http.close()  # whoever wanted the answer has gone
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
        except BaseException as error:
            step.error = step.raised(error)
            if step.error is None:
                raise
            return
        finally:
            THREAD_ALARMS.clear(step)
        self.read(step, response)

    def read(self, step: Send, response: APIResponse[Any]) -> None:
        """What came of an attempt."""
        if step.came(response):
            try:
                step.parsed = response.parse()
            except Exception as error:
                step.unparsed = error


class _Going:
    """A call whose stream was handed out, and how it goes on."""

    __slots__ = ("_asks", "_left", "_out", "_steps")

    def __init__(self, steps: Steps, out: HandOut) -> None:
        self._steps = steps
        self._out = out
        self._asks = self._left = False
        """Another response is asked for; whoever wanted one has closed the stream meanwhile."""

    def ended(self, end: StreamEnd) -> None:
        if not self._asks:
            _tell_end(self._steps, self._out, end)
            return
        self._left = True
        with suppress(ValueError):  # another thread is at it just now, and looks afterwards
            self._steps.close()

    def _came(self, came: HandOut | AnyResponse | None) -> httpx2.Response | None:
        """The response that came, of whatever status; None where there is none, or nobody wants it any more."""
        if isinstance(came, HandOut):
            self._out = came
        self._asks = False
        if self._left:
            self._steps.close()
        if came is None or (isinstance(came, HandOut) and came.nothing):
            return None
        return (came.take() if isinstance(came, HandOut) else came).http_response


class _SyncWatcher(_Going):
    """Of a synchronous client."""

    __slots__ = ("_driver",)

    def __init__(self, driver: SyncDriver, steps: Steps, out: HandOut) -> None:
        super().__init__(steps, out)
        self._driver = driver

    def again(self, end: StreamEnd) -> httpx2.Response | None:
        self._out.end, self._asks = end, True
        came = self._driver.run(self._steps)
        http = self._came(came)
        if http is None or isinstance(came, HandOut):
            return http
        if not http.is_closed:
            http.read()
        return _accepted(came, http)


class AsyncDriver:
    """Drives calls of asynchronous clients, in any loop of asyncio."""

    def __init__(self, clock: Clock, waits: Waits, *, stream_bytes: int) -> None:
        self._clock = clock
        self._waits = waits
        self._stream_bytes = stream_bytes
        self._alarms: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopAlarms] = WeakKeyDictionary()
        self.alarms: LoopAlarms | None = None
        """Of the loop where the last attempt began."""

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
            keep_bytes=self._stream_bytes,
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
                    if step.http is not None and getgeneratorstate(steps) == GEN_CLOSED:
                        await step.http.aclose()  # whoever wanted the answer has gone
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

    async def send(self, step: Send) -> None:
        """One attempt. What its caller is told meanwhile is raised: that it is cancelled."""
        alarms = self.alarms_here()
        alarms.set(step, step.left_s)
        try:
            response = await cast("Awaitable[AsyncAPIResponse[Any]]", step.call_next(step.request))
        except BaseException as error:
            step.error = step.raised(error)
            if step.error is None:
                raise
            return
        finally:
            alarms.clear(step)
        await self.read(step, response)

    async def read(self, step: Send, response: AsyncAPIResponse[Any]) -> None:
        """What came of an attempt."""
        if step.came(response):
            try:
                step.parsed = await response.parse()
            except Exception as error:
                step.unparsed = error

    def alarms_here(self) -> LoopAlarms:
        """Those of the loop that runs."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise GuardError(
                "a guarded async client needs asyncio's loop, and this is another (trio's?): call a sync client in a "
                "thread of it, as with trio.to_thread.run_sync, or run under asyncio"
            ) from None
        if (alarms := self._alarms.get(loop)) is None:
            alarms = self._alarms[loop] = LoopAlarms(loop)
        self.alarms = alarms
        return alarms


class _AsyncWatcher(_Going):
    """Of an asynchronous client."""

    __slots__ = ("_driver",)

    def __init__(self, driver: AsyncDriver, steps: Steps, out: HandOut) -> None:
        super().__init__(steps, out)
        self._driver = driver

    async def again(self, end: StreamEnd) -> httpx2.Response | None:
        self._out.end, self._asks = end, True
        came = await self._driver.run(self._steps)
        http = self._came(came)
        if http is None or isinstance(came, HandOut):
            return http
        if not http.is_closed:
            await http.aread()
        return _accepted(came, http)


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


def _accepted(came: AnyResponse | None, http: httpx2.Response) -> httpx2.Response:
    """What a stream goes on from. Raises what the SDK raises for an answer of another status."""
    if http.is_success:
        return http
    client = getattr(came, "_client", None)
    assert isinstance(client, BaseClient)
    raise client._make_status_error_from_response(http) from None
