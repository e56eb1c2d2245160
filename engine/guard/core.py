"""A guarded call from its beginning to its end: written once, for both kinds of clients, and without I/O."""

from anthropic import APIRequest

from relight.engine.errors import BudgetExceeded, CircuitOpen, DeadlineExceeded
from relight.engine.guard.answers import answer_of, fault_of, raised_by, read_so_far
from relight.engine.guard.endpoints import CHAT
from relight.engine.guard.facts import Attempt, Call, Failure
from relight.engine.guard.parts import Parts
from relight.engine.guard.steps import AnyResponse, CallAny, HandOut, Pause, Release, Send, Steps
from relight.engine.guard.watching import Expected
from relight.engine.policies.retry import Failed, GiveUp, after

_US = 1_000_000


def conduct(
    parts: Parts, call: Call, request: APIRequest, call_next: CallAny, *, until_us: int, parses: bool, repeatable: bool
) -> Steps:
    """Yields what is to be done, and returns the answer to hand out, of whatever status; None after a stream's end.

    Raises what the last attempt raised, or `DeadlineExceeded`. Whatever is thrown in ends the call, and is recorded.
    """
    now_us = parts.clock.now_us
    attempt: Attempt | None = None
    failed: Send | None = None
    waited_s, overloads = 0.0, 0
    parts.taken(call)
    try:
        while True:
            started_us = now_us()
            if started_us >= until_us:
                raise _late(call, failed)
            call.attempts += 1
            attempt = Attempt(call.attempts, call.dependency, started_us, waited_s)
            sent = Send(request, call_next, (until_us - started_us) / _US, parses)
            yield sent
            attempt.ended_us = ended_us = now_us()
            handed_out: HandOut | None = None
            if (fault := fault_of(sent, attempt, now_us=ended_us)) is None:
                if sent.is_whole and not (call.streams and sent.http is not None):
                    return _answered(parts, call, attempt, sent)
                yield (handed_out := HandOut(sent, _expected(call)))
                fault = read_so_far(attempt, handed_out)
                if handed_out.over or fault is None:
                    _over(parts, call, attempt)
                    return None
                ended_us = now_us()
            attempt.failure = fault.failure
            if sent.late or ended_us >= until_us:
                attempt.failure = Failure.DEADLINE
                raise _late(call, failed or sent)
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
                    left_s=(until_us - ended_us) / _US,
                    repeatable=repeatable,
                ),
                chance=parts.waits.chance(),
            )
            if isinstance(decided, GiveUp):
                if handed_out is None:
                    return _given_up(parts, call, attempt, sent)
                yield (handed_out := HandOut(sent, handed_out.expects, nothing=True))
                read_so_far(attempt, handed_out)
                _over(parts, call, attempt)
                return None
            parts.attempted(call, attempt)
            attempt, failed = None, sent
            if (http := sent.http) is not None:
                yield Release(http)
                del http
            waited_s = decided.seconds
            yield Pause(waited_s)
    except BaseException as error:
        if call.ended_us is None:
            failure = _failure_of(error)
            if attempt is not None and attempt.failure is None:
                attempt.failure = failure
            _end(parts, call, attempt, failure)
        raise


def _expected(call: Call) -> Expected:
    if call.operation != CHAT:
        return Expected.OTHER
    return Expected.EVENTS if call.streams else Expected.MESSAGE


def _answered(parts: Parts, call: Call, attempt: Attempt, sent: Send) -> AnyResponse | None:
    if sent.parsed is not None:
        call.answer = attempt.answer = answer_of(sent.parsed)
    _end(parts, call, attempt, None)
    return sent.response


def _over(parts: Parts, call: Call, attempt: Attempt) -> None:
    """A stream was read to its end, or it failed, or was left."""
    call.answer = attempt.answer
    call.first_token_us = attempt.first_token_us
    _end(parts, call, attempt, attempt.failure)


def _given_up(parts: Parts, call: Call, attempt: Attempt, sent: Send) -> AnyResponse | None:
    _end(parts, call, attempt, attempt.failure)
    if sent.error is not None:
        raise sent.error
    return sent.response


def _end(parts: Parts, call: Call, attempt: Attempt | None, failure: Failure | None) -> None:
    ended_us = None if attempt is None else attempt.ended_us
    call.ended_us = parts.clock.now_us() if ended_us is None else ended_us
    call.failure = failure
    if attempt is not None:
        attempt.ended_us = call.ended_us
        if failure is None:
            call.served_by = attempt.dependency
    parts.known(call, attempt)


def _late(call: Call, failed: Send | None) -> DeadlineExceeded:
    attempts = "1 attempt" if call.attempts == 1 else f"{call.attempts} attempts"
    late = DeadlineExceeded(
        f"no answer of {call.dependency.name} before the deadline, after {attempts}: allow more time, or look at "
        f"its cause"
    )
    late.__cause__ = None if failed is None else raised_by(failed)
    return late


def _failure_of(error: BaseException) -> Failure:
    match error:
        case DeadlineExceeded():
            return Failure.DEADLINE
        case CircuitOpen():
            return Failure.CIRCUIT_OPEN
        case BudgetExceeded():
            return Failure.BUDGET
        case GeneratorExit():
            return Failure.ABANDONED
        case Exception():
            return Failure.UNKNOWN
    return Failure.CANCELLED
