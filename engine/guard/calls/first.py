"""A call as it begins, and its first attempt. Nearly always that works and is the only one: then this is all of it."""

from contextvars import Context, copy_context

from anthropic import APIRequest

from relight.engine.guard.breakers.breaker import Breaker
from relight.engine.guard.calls.classify import request_id
from relight.engine.guard.calls.deadlines import deadline_us
from relight.engine.guard.calls.outcomes import ended_by
from relight.engine.guard.calls.parts import Parts
from relight.engine.guard.calls.steps import CallAny, Send
from relight.engine.guard.clients.endpoints import operation
from relight.engine.guard.clients.known_clients import Lane, is_model
from relight.engine.guard.clients.tracing import traceparent_in
from relight.engine.guard.facts import Attempt, Call
from relight.engine.scope import scope_in


class First(Send):
    """The call, as a journal takes it, and as the core goes on with it; `sent` where it has been, and what came of it.

    Its `Call` and `Attempt` are made for the core, or by the thread that records it. There is no __init__: whoever
    begins a call sets `lane`, `number`, `request`, `context` and `started_ns` himself, which takes half of the time.
    """

    lane: Lane
    number: int
    context: Context
    started_ns: int
    ended_ns = 0
    sent = False

    @classmethod
    def taken(cls, parts: Parts, request: APIRequest, call_next: CallAny, *, asynchronous: bool) -> "First":
        """Of a call that the core conducts from the beginning."""
        if asynchronous is parts.unserved:
            parts.routes.stand_in(asynchronous=asynchronous)
        first = new_first(cls)
        first.number = next(parts.numbers)
        first.request = request
        first.context = copy_context()
        first.lane = parts.clients.lane(call_next, request.options.json_data, parts)
        first.started_ns = parts.now_ns()
        if request.retries_taken:
            parts.retried_outside += 1
        try:
            parts.journal.begun(first)
        except Exception as error:
            parts.failed("journal", error)
        first._know(call_next)
        return first

    def leads_on(self, call_next: CallAny) -> None:
        """It was sent, and something comes of it that the core has to see to."""
        self.sent = True
        self._know(call_next)

    def _know(self, call_next: CallAny) -> None:
        request, callers_us = self.request, deadline_us()
        self.call_next = call_next
        self.started_us = started_us = self.started_ns // 1_000
        self.until_us = started_us + self.lane.parts.deadline_us
        if callers_us is not None:
            self.until_us = min(self.until_us, callers_us)
        self.parses = not request.stream and is_model(request.cast_to)

    @property
    def breaker(self) -> Breaker | None:
        return self.lane.breaker

    @property
    def call(self) -> Call:
        """Made by whoever asks first, the core or the thread that records it."""
        made: Call | None = self.__dict__.get("made")
        # Atomic: both may ask at once.
        return made or self.__dict__.setdefault("made", self._made())

    def outcome(self) -> tuple[Call, Attempt]:
        call, http, lane = self.call, self.http, self.lane
        assert http is not None
        ended_us = self.ended_ns // 1_000
        call.served_by, call.attempts, call.ended_us = lane.dependency, 1, ended_us
        attempt = Attempt(1, lane.dependency, call.started_us, ended_us=ended_us, status=http.status_code)
        attempt.request_id, attempt.body = request_id(http.headers), http.content
        return call, attempt

    def ended(self, error: BaseException) -> None:
        """By what was raised from outside."""
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
            scope_in(self.context),
            self.started_ns // 1_000,
            body if isinstance(body, dict) else None,
            request.stream,
            lane.max_retries,
            traceparent_in(self.context),
        )


new_first = First.__new__
