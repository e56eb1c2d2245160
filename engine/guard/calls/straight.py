"""The straight way of a call whose first attempt works, as nearly all do; every other one is the core's affair.

It is the core's own way through such a call, written out in one line: take the call, pass a closed breaker, send, see
that a whole answer came and can be read, tell the breaker, record. A call that is not of this kind goes to the core
before it is taken; what turns out not to be so later goes there with what came of its first attempt. That both ways
record the same and hand out the same is shown by tests/test_guard_straight.py.
"""

from threading import get_ident
from typing import Any

from anthropic import APIRequest, APIResponse, AsyncAPIResponse, AsyncCallNext, CallNext, Middleware

from relight.engine.guard.breakers.permits import CLOSED
from relight.engine.guard.calls.begun import Begun, new_begun
from relight.engine.guard.calls.core import Conduct
from relight.engine.guard.calls.cutting import THREAD_ALARMS
from relight.engine.guard.calls.deadlines import deadline_us
from relight.engine.guard.calls.driving import AsyncDriver, SyncDriver
from relight.engine.guard.calls.first import First, taken
from relight.engine.guard.calls.parts import Parts
from relight.engine.guard.calls.steps import CallAny
from relight.engine.guard.clients.tracing import tracing_context
from relight.engine.scope import current

OK = 200


class Straight(Middleware):
    """Takes calls of both kinds of clients, for one guard."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        stream_bytes = parts.journal.stream_bytes
        self._sync = SyncDriver(parts.clock, parts.waits, stream_bytes=stream_bytes)
        self._async = AsyncDriver(parts.clock, parts.waits, stream_bytes=stream_bytes)

    def handle(self, request: APIRequest, call_next: CallNext) -> APIResponse[Any]:
        if (begun := self._begun(request, call_next)) is None:
            return self._conducted(taken(self._parts, request, call_next, asynchronous=False))
        response = failed = None
        THREAD_ALARMS.set(begun, begun.left_s)
        try:
            response = call_next(request)
        except BaseException as error:
            if (failed := begun.raised(error)) is None:
                begun.ended(error)
                raise
        finally:
            THREAD_ALARMS.clear(begun)
        if type(response) is APIResponse and (http := response.http_response).is_closed and http.status_code == OK:
            try:
                parsed = response.parse()
            except Exception:
                parsed = None
            if type(parsed) is request.cast_to:
                begun.http = http
                self._worked(begun)
                return response
        first = First(begun, call_next, sent=True)
        first.error = failed
        if response is not None:
            self._sync.read(first, response)
        return self._conducted(first)

    async def handle_async(self, request: APIRequest, call_next: AsyncCallNext) -> AsyncAPIResponse[Any]:
        alarms = self._async.alarms
        if alarms is None or alarms.runs_in._thread_id != get_ident():
            alarms = self._async.alarms_here()
        if (begun := self._begun(request, call_next)) is None:
            return await self._conducted_async(taken(self._parts, request, call_next, asynchronous=True))
        response = failed = None
        alarms.set(begun, begun.left_s)
        try:
            response = await call_next(request)
        except BaseException as error:
            if (failed := begun.raised(error)) is None:
                begun.ended(error)
                raise
        finally:
            alarms.clear(begun)
        if type(response) is AsyncAPIResponse and (http := response.http_response).is_closed and http.status_code == OK:
            try:
                parsed = await response.parse()
            except Exception:
                parsed = None
            if type(parsed) is request.cast_to:
                begun.http = http
                self._worked(begun)
                return response
        first = First(begun, call_next, sent=True)
        first.error = failed
        if response is not None:
            await self._async.read(first, response)
        return await self._conducted_async(first)

    def _begun(self, request: APIRequest, call_next: CallAny) -> Begun | None:
        """Takes a call that may go the straight way; None for any other, of which nothing is known yet."""
        parts = self._parts
        lane = parts.clients.lane(call_next, request.options.json_data, parts)
        if not lane.straight or request.stream or request.retries_taken:
            return None
        if (breaker := lane.breaker) is not None and not breaker.passes:
            return None
        if request.cast_to is not lane.kind and not lane.reads(request.cast_to):
            return None
        started_ns, left_s = parts.now_ns(), parts.deadline_s
        if (callers_us := deadline_us()) is not None:
            left_s = min(left_s, (callers_us * 1_000 - started_ns) / 1e9)
            if left_s <= 0:
                return None
        begun = new_begun(Begun)
        begun.lane = lane
        begun.number = next(parts.numbers)
        begun.request = request
        begun.context = current()
        begun.traced = tracing_context()
        begun.started_ns = started_ns
        begun.left_s = left_s
        begun.made = None
        try:
            parts.journal.begun(begun)
        except Exception as error:
            parts.failed("journal", error)
        return begun

    def _worked(self, begun: Begun) -> None:
        """The call is over."""
        parts = self._parts
        begun.ended_ns = ended_ns = parts.now_ns()
        if (breaker := begun.lane.breaker) is not None:
            try:
                breaker.succeeded(CLOSED, (ended_ns - begun.started_ns) // 1_000, ended_ns // 1_000)
            except Exception as error:
                parts.failed("breaker", error)
        try:
            parts.journal.worked(begun)
        except Exception as error:
            parts.failed("journal", error)

    def _conducted(self, first: First) -> APIResponse[Any]:
        steps = Conduct(self._parts, first, asynchronous=False).steps()
        return self._sync.drive(steps, stream_until_us=deadline_us())

    async def _conducted_async(self, first: First) -> AsyncAPIResponse[Any]:
        steps = Conduct(self._parts, first, asynchronous=True).steps()
        return await self._async.drive(steps, stream_until_us=deadline_us())
