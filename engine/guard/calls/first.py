"""The first attempt of a call. Nearly always it works and is the only one: then nothing else is made for the call."""

from anthropic import APIRequest

from relight.engine.guard.breakers.breaker import Breaker, Permit, Refused
from relight.engine.guard.calls.outcomes import ended_by
from relight.engine.guard.calls.parts import Parts
from relight.engine.guard.calls.steps import CallAny, Send
from relight.engine.guard.facts import Attempt, Call

_US = 1_000_000


class First(Send):
    """`may` be sent, unless the core has to see to the call before; the core goes on from whatever came of it."""

    __slots__ = ("breaker", "call", "may", "permit", "refused", "until_us")

    def __init__(
        self,
        parts: Parts,
        call: Call,
        breaker: Breaker | None,
        request: APIRequest,
        call_next: CallAny,
        until_us: int,
        parses: bool,
    ) -> None:
        """The call is taken."""
        left_us = until_us - call.started_us
        Send.__init__(self, request, call_next, left_us / _US, parses)
        self.call = call
        self.breaker = breaker
        self.until_us = until_us
        self.permit: Permit | None = None
        self.refused: Refused | None = None
        parts.taken(call)
        self.may = parts.budgets is None and left_us > 0
        if self.may:
            if breaker is not None:
                answer = parts.asked(breaker, call.started_us)
                if isinstance(answer, Refused):
                    self.refused, self.may = answer, False
                    return
                self.permit = answer
            call.attempts = 1

    def worked(self, parts: Parts) -> bool:
        """Whether it is all there is to the call, which is recorded then."""
        parsed, http = self.parsed, self.http
        if parsed is None or http is None or parts.falls_back:
            return False
        # The SDK has looked for it already: a look into the headers costs half a microsecond.
        request_id: str | None = getattr(parsed, "_request_id", None)
        if request_id is None:
            return False
        call = self.call
        call.served_by = dependency = call.dependency
        call.ended_us = ended_us = parts.clock.now_us()
        attempt = Attempt(1, dependency, call.started_us, 0.0, ended_us, None, http.status_code, None, request_id)
        attempt.body = http.content
        if self.permit is not None and self.breaker is not None:
            parts.answered(self.breaker, self.permit, attempt)
        parts.known(call, attempt)
        return True

    def ended(self, parts: Parts, error: BaseException) -> None:
        """By what was raised from outside."""
        call = self.call
        call.ended_us = ended_us = parts.clock.now_us()
        call.failure = failure = ended_by(error, None)
        attempt = Attempt(1, call.dependency, call.started_us, 0.0, ended_us, failure=failure)
        if self.permit is not None and self.breaker is not None:
            parts.answered(self.breaker, self.permit, attempt)
        parts.known(call, attempt)
