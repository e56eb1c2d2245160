"""A call that has begun, as its journal takes it: all that is kept of one that works."""

import os
import threading

import httpx2
from anthropic import APIRequest
from opentelemetry.context import Context

from relight.engine.guard.calls.alarms import Alarm
from relight.engine.guard.calls.classify import request_id
from relight.engine.guard.calls.outcomes import ended_by
from relight.engine.guard.clients.endpoints import operation
from relight.engine.guard.clients.known_clients import Lane
from relight.engine.guard.clients.tracing import traceparent_in
from relight.engine.guard.facts import Attempt, Call
from relight.engine.recorder.items import Part
from relight.engine.scope import Scope

_making = threading.RLock()
"""One for all: it is held for microseconds. A finalizer may ask for a call in the middle of making another one."""


class Begun(Alarm):
    """It is the alarm of its first attempt as well.

    Its `Call` and `Attempt` are made for the core, or by the thread that records it. Whoever begins a call sets what is
    known of it then (`made` to None) himself, and there is room for nothing else: an __init__ takes as long as the
    breaker, and what is new in memory still longer.
    """

    __slots__ = (
        "begins_in",
        "context",
        "ended_ns",
        "http",
        "lane",
        "left_s",
        "made",
        "number",
        "part",
        "request",
        "started_ns",
        "traced",
    )
    part: Part
    """The journal's, as is `begins_in`."""
    begins_in: object
    lane: Lane
    number: int
    """Given at once: a call that goes on in a fork()ed child is the same one there."""
    request: APIRequest
    context: Scope
    """The caller's, as is `traced`."""
    traced: Context
    started_ns: int
    left_s: float
    """Of the time for its first attempt, then."""
    made: Call | None
    http: httpx2.Response
    """What answered, once it worked, as is `ended_ns`."""
    ended_ns: int

    @property
    def call(self) -> Call:
        """Made by whoever asks first, the core or the thread that records it."""
        if self.made is None:
            with _making:
                made: Call | None = self.made  # maybe by another thread meanwhile
                self.made = made or self._made()
        return self.made

    def outcome(self) -> tuple[Call, Attempt]:
        call, http, dependency = self.call, self.http, self.lane.dependency
        ended_us = self.ended_ns // 1_000
        call.served_by, call.attempts, call.ended_us = dependency, 1, ended_us
        attempt = Attempt(1, dependency, call.started_us, ended_us=ended_us, status=http.status_code)
        attempt.request_id, attempt.body = request_id(http.headers), http.content
        return call, attempt

    def ended(self, error: BaseException) -> None:
        """By what was raised from outside, during its first attempt."""
        parts, call = self.lane.parts, self.call
        call.ended_us = ended_us = parts.clock.now_us()
        call.attempts = 1
        call.failure = failure = ended_by(error, None)
        parts.known(call, Attempt(1, call.dependency, call.started_us, ended_us=ended_us, failure=failure))

    def _made(self) -> Call:
        request, options, lane = self.request, self.request.options, self.lane
        body = options.json_data
        return Call(
            f"{lane.parts.name}-{self.number}",
            operation(options.method, options.url),
            lane.dependency,
            self.context,
            self.started_ns // 1_000,
            body if isinstance(body, dict) else None,
            request.stream,
            lane.max_retries,
            traceparent_in(self.traced),
        )


new_begun = Begun.__new__


def _after_fork_in_child() -> None:
    """Another thread of the parent may have held it, and that thread is not here."""
    global _making
    _making = threading.RLock()


os.register_at_fork(after_in_child=_after_fork_in_child)
