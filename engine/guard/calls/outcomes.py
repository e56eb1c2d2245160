"""What an attempt's answer says of itself, and how it failed, once the driver has it."""

import json

import httpx2
from anthropic import APIResponseValidationError, BaseModel
from anthropic._base_client import BaseClient

from relight.engine.errors import BudgetExceeded, CircuitOpen, DeadlineExceeded
from relight.engine.guard.calls.classify import Fault, of_error, of_response, request_id
from relight.engine.guard.calls.steps import HandOut, Send
from relight.engine.guard.facts import Attempt, Call, Failure

_UNREADABLE = (json.JSONDecodeError, UnicodeDecodeError, APIResponseValidationError, httpx2.DecodingError)


def fault_of(sent: Send, attempt: Attempt, *, now_us: int) -> Fault | None:
    """None where it is an answer. Writes what is known of it into `attempt`."""
    if sent.error is not None:
        return of_error(sent.error, now_us=now_us)
    if (http := sent.http) is None:
        return None
    attempt.status = http.status_code
    if not 200 <= http.status_code < 300:
        fault = of_response(http, now_us=now_us)
        attempt.request_id = fault.request_id
        if http.is_closed:
            attempt.body = http.content
        return fault
    # The SDK has looked it up already, and a look into the headers costs half a microsecond.
    attempt.request_id = getattr(sent.parsed, "_request_id", None) or request_id(http.headers)
    if not sent.parses or not sent.whole:
        return None
    attempt.body = http.content
    if isinstance(sent.unparsed, _UNREADABLE) or (sent.unparsed is None and not isinstance(sent.parsed, BaseModel)):
        return Fault(failure=Failure.MALFORMED, status=http.status_code, request_id=attempt.request_id)
    return None


def read_so_far(attempt: Attempt, handed_out: HandOut) -> Fault | None:
    """How reading a stream ended; None where it is read to its end, or was left by the caller."""
    end = handed_out.end
    assert end is not None
    attempt.ended_us = end.ended_us
    attempt.first_token_us = end.first_token_us
    attempt.failure = end.failure
    attempt.answer = end.answer
    attempt.body, attempt.body_sha256, attempt.body_bytes = end.body, end.sha256, end.size_bytes
    return None if end.failure is None else Fault(failure=end.failure, status=attempt.status)


def raised_by(sent: Send) -> Exception | None:
    """What the SDK would raise for this attempt."""
    if sent.error is not None or sent.unparsed is not None:
        return sent.error or sent.unparsed
    http, client = sent.http, getattr(sent.response, "_client", None)
    if http is None or not isinstance(client, BaseClient) or http.is_success or not http.is_closed:
        return None
    return client._make_status_error_from_response(http)


def stop_reason(sent: Send) -> str | None:
    """Of a message that was parsed."""
    reason: object = getattr(sent.parsed, "stop_reason", None)
    return reason if isinstance(reason, str) else None


def late(call: Call, failed: Send | None) -> DeadlineExceeded:
    """`failed`: the last attempt, or the one that was cut off."""
    attempts = "1 attempt" if call.attempts == 1 else f"{call.attempts} attempts"
    error = DeadlineExceeded(
        f"no answer of {call.dependency.name} before the deadline, after {attempts}: allow more time, or look at its "
        "cause"
    )
    error.__cause__ = None if failed is None else raised_by(failed)
    return error


def ended_by(error: BaseException, attempt: Attempt | None) -> Failure:
    """How a call failed that this ends: an error of the guard's own, or what its driver was told from outside."""
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
            return Failure.UNKNOWN if attempt is None or attempt.failure is None else attempt.failure
    return Failure.CANCELLED
