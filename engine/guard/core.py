"""A guarded call from its beginning to its end: written once, for both kinds of clients, and without I/O."""

import asyncio

from anthropic import APIRequest

from relight.engine.errors import DeadlineExceeded
from relight.engine.guard.answers import answer_of, fault_of
from relight.engine.guard.classify import Fault
from relight.engine.guard.endpoints import CHAT
from relight.engine.guard.facts import Attempt, Call, Failure
from relight.engine.guard.parts import Parts
from relight.engine.guard.steps import CallAny, HandOut, Pause, Release, Send, Steps
from relight.engine.policies.retry import Failed, GiveUp, after

_US = 1_000_000


def conduct(
    parts: Parts, call: Call, request: APIRequest, call_next: CallAny, *, until_us: int, parses: bool, repeatable: bool
) -> Steps:
    """Yields what is to be done, and returns the answer to hand out, of whatever status.

    Raises what the last attempt raised, or `DeadlineExceeded`. Whatever is thrown in ends the call, and is recorded.
    """
    clock = parts.clock
    attempt: Attempt | None = None
    sent: Send | None = None
    waited_s, overloads = 0.0, 0
    parts.taken(call)
    try:
        while True:
            now_us = clock.now_us()
            if now_us >= until_us:
                raise _late(call, sent)
            call.attempts += 1
            attempt = Attempt(call.attempts, call.dependency, now_us, waited_s)
            before, sent = sent, Send(request, call_next, (until_us - now_us) / _US, parses)
            yield sent
            attempt.ended_us = now_us = clock.now_us()
            fault = fault_of(sent, attempt, now_us=now_us)
            if fault is None:
                http = sent.http
                if http is None or http.is_closed:
                    break
                watched = HandOut(sent, http)
                yield watched
                fault = _read(call, attempt, watched)
                if watched.over:
                    break
                now_us = clock.now_us()
            elif sent.late or now_us >= until_us:
                raise _late(call, sent, before)
            attempt.failure = fault.failure
            attempt.retry_after_s = fault.asked_s
            overloads += fault.failure is Failure.OVERLOADED
            decided = after(
                parts.retry,
                Failed(
                    failure=fault.failure,
                    attempts=call.attempts,
                    overloads=overloads,
                    asked_s=fault.asked_s,
                    should_retry=fault.should_retry,
                    left_s=(until_us - now_us) / _US,
                    repeatable=repeatable,
                ),
                chance=parts.waits.chance(),
            )
            if isinstance(decided, GiveUp):
                break
            parts.attempted(call, attempt)
            attempt = None
            if sent.http is not None:
                yield Release(sent.http)
            waited_s = decided.seconds
            yield Pause(waited_s)
    except BaseException as error:
        _ended(parts, call, attempt, _failure_of(error))
        raise
    _ended(parts, call, attempt, attempt.failure)
    ...
