"""The first attempt of a call. Nearly always it works and is the only one: then nothing else is made for the call."""

from contextvars import copy_context

from anthropic import APIRequest

from relight.engine.guard.breakers.breaker import Breaker, Permit, Refused
from relight.engine.guard.calls.classify import request_id
from relight.engine.guard.calls.deadlines import deadline_us
from relight.engine.guard.calls.outcomes import ended_by
from relight.engine.guard.calls.parts import Parts
from relight.engine.guard.calls.steps import AnyResponse, CallAny, Send
from relight.engine.guard.clients.endpoints import operation
from relight.engine.guard.clients.known_clients import is_model
from relight.engine.guard.clients.tracing import traceparent_in
from relight.engine.guard.facts import Attempt, Call
from relight.engine.scope import scope_in


class First(Send):
    """`may` be sent, unless the core has to see to the call before; the core goes on from whatever came of it.

    It is the call as well, as a journal takes it: its `Call` and `Attempt` are made for the core, or by the thread
    that records it.
    """

    may = True
    permit: Permit | None = None
    refused: Refused | None = None
    ended_us = 0

    def __init__(self, parts: Parts, request: APIRequest, call_next: CallAny, *, asynchronous: bool) -> None:
        """Takes the call."""
        if asynchronous is parts.unserved:
            parts.routes.stand_in(asynchronous=asynchronous)
        self.parts = parts
        self.number = next(parts.numbers)
        self.request = request
        self.call_next = call_next
        self.context = copy_context()
        self.lane = lane = parts.clients.lane(call_next, request.options.json_data, parts)
        self.started_us = started_us = parts.now_us()
        self.until_us = started_us + parts.deadline_us
        self.parses = not request.stream and is_model(request.cast_to)
        if request.retries_taken:
            parts.retried_outside += 1
        try:
            parts.journal.begun(self)
        except Exception as error:
            parts.failed("journal", error)
        callers_us = deadline_us()
        if callers_us is not None and callers_us < self.until_us:
            self.until_us = callers_us
            self.may = started_us < callers_us
        if parts.budgets is not None:
            self.may = False
        if self.may and (breaker := lane.breaker) is not None:
            try:
                answer = breaker.permit(started_us)
            except Exception as error:
                parts.failed("breaker", error)
            else:
                if isinstance(answer, Refused):
                    self.refused, self.may = answer, False
                else:
                    self.permit = answer

    @property
    def breaker(self) -> Breaker | None:
        return self.lane.breaker

    @property
    def call(self) -> Call:
        """Made by whoever asks first, the core or the thread that records it."""
        made: Call | None = self.__dict__.get("made")
        # Atomic: both may ask at once.
        return made or self.__dict__.setdefault("made", self._made())

    def worked(self) -> AnyResponse | None:
        """What there is to hand out where it is all there is to the call, which is recorded then."""
        parts, http, response = self.parts, self.http, self.response
        # The SDK has looked for it already: a look into the headers costs half a microsecond.
        if getattr(self.parsed, "_request_id", None) is None or http is None or parts.falls_back:
            return None
        self.ended_us = ended_us = parts.now_us()
        if self.permit is not None and (breaker := self.lane.breaker) is not None:
            try:
                breaker.succeeded(self.permit, ended_us - self.started_us, ended_us)
            except Exception as error:
                parts.failed("breaker", error)
        self.parsed = self.response = None  # the caller's
        try:
            parts.journal.worked(self)
        except Exception as error:
            parts.failed("journal", error)
        return response

    def outcome(self) -> tuple[Call, Attempt]:
        call, http, lane = self.call, self.http, self.lane
        assert http is not None
        call.served_by, call.attempts, call.ended_us = lane.dependency, 1, self.ended_us
        attempt = Attempt(1, lane.dependency, self.started_us, ended_us=self.ended_us, status=http.status_code)
        attempt.request_id, attempt.body = request_id(http.headers), http.content
        return call, attempt

    def ended(self, error: BaseException) -> None:
        """By what was raised from outside."""
        parts, call = self.parts, self.call
        call.ended_us = ended_us = parts.now_us()
        call.attempts = 1
        call.failure = failure = ended_by(error, None)
        attempt = Attempt(1, call.dependency, call.started_us, ended_us=ended_us, failure=failure)
        if self.permit is not None and self.breaker is not None:
            parts.answered(self.breaker, self.permit, attempt)
        parts.known(call, attempt)

    def _made(self) -> Call:
        request, options, lane = self.request, self.request.options, self.lane
        body = options.json_data
        return Call(
            f"{self.parts.name}-{self.number}",
            operation(options.method, options.url),
            lane.dependency,
            scope_in(self.context),
            self.started_us,
            body if isinstance(body, dict) else None,
            request.stream,
            lane.max_retries,
            traceparent_in(self.context),
        )
