"""A call as the core gets it: to be conducted from its beginning, or from its first attempt on."""

from anthropic import APIRequest

from relight.engine.guard.calls.begun import Begun, new_begun
from relight.engine.guard.calls.deadlines import deadline_us
from relight.engine.guard.calls.parts import Parts
from relight.engine.guard.calls.steps import CallAny, Send
from relight.engine.guard.clients.known_clients import is_model
from relight.engine.guard.clients.tracing import tracing_context
from relight.engine.scope import current


class First(Send):
    """The first attempt; `sent` where it has been, and what came of it is in here."""

    def __init__(self, begun: Begun, call_next: CallAny, *, sent: bool) -> None:
        request, started_us, callers_us = begun.request, begun.started_ns // 1_000, deadline_us()
        until_us = started_us + begun.lane.parts.deadline_us
        if callers_us is not None:
            until_us = min(until_us, callers_us)
        parses = not request.stream and is_model(request.cast_to)
        super().__init__(request, call_next, started_us, until_us, parses=parses)
        self.call = begun.call
        self.breaker = begun.lane.breaker
        self.sent = sent
        if sent:
            self.fired = begun.fired


def taken(parts: Parts, request: APIRequest, call_next: CallAny, *, asynchronous: bool) -> First:
    """Takes a call of whatever kind. Raises `GuardError` where fallbacks could not stand in for its client."""
    if asynchronous is parts.unserved:
        parts.routes.stand_in(asynchronous=asynchronous)
    if request.retries_taken:
        parts.retried_outside += 1
    begun = new_begun(Begun)
    begun.lane = parts.clients.lane(call_next, request.options.json_data, parts)
    begun.number = next(parts.numbers)
    begun.request = request
    begun.context = current()
    begun.traced = tracing_context()
    begun.started_ns = parts.now_ns()
    begun.left_s = parts.deadline_s
    begun.made = None
    parts.begun(begun)
    return First(begun, call_next, sent=False)
