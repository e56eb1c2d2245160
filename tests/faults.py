"""The table of fault scripts: what a guarded call meets, and what must come of it, exactly."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import format_datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import anthropic
import httpx2

from relight.engine.errors import CircuitOpen, DeadlineExceeded
from relight.engine.fake.steps import Fault, Step

OVERLOADED_WAITS_S = (2, 4, 8, 16, 32, 60)


class Where(StrEnum):
    """What the call is sent to."""

    FAKE = "fake"
    NO_NAME = "no_name"
    """a name that does not resolve"""
    NO_TLS = "no_tls"
    """https, to a server that speaks none"""
    REFUSED = "refused"
    """a port where nobody listens"""
    FULL = "full"
    """a listener whose backlog is full: connecting hangs"""


class Stop(StrEnum):
    """When the caller cancels."""

    IN_WAIT = "in_wait"
    IN_ATTEMPT = "in_attempt"


@dataclass(frozen=True, slots=True)
class Tried:
    """One attempt as it must be recorded: a status where an answer began, a failure where it went wrong."""

    status: int | None = 200
    failure: str | None = None
    asked_s: float | None = None
    """What the server asked for."""


@dataclass(frozen=True, slots=True)
class Raises:
    """What the caller gets instead of an answer; `status` of an `APIStatusError`, `cause` of an error of ours."""

    type: type[BaseException]
    status: int | None = None
    error_type: str | None = None
    cause: type[BaseException] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A name, a script, and what must come of it. `tried` ends with the attempt that the caller gets."""

    name: str
    steps: Callable[[datetime], tuple[Step, ...]]
    """Of the time at which the call begins."""
    tried: tuple[Tried, ...]
    waits_s: tuple[float, ...] = ()
    raises: Raises | None = None
    """None: the answer of the last attempt, whole."""
    streams: bool = False
    deltas: int | None = None
    """Handed to the caller before the fault; None: all of them."""
    counts: bool = False
    """The call is `count_tokens`."""
    where: Where = Where.FAKE
    stops: Stop | None = None
    deadline_s: float | None = None
    """The caller's."""
    policy: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 20
    """The client's own."""
    really: bool = False
    """Against the real clock: nothing waits, and the deadline is one of seconds that pass."""
    error_class: str | None = None
    """Of the outcome, where it is not that of the last attempt."""
    stop_reason: str = "end_turn"
    trips: tuple[int, ...] = ()
    """Numbers of the attempts, from 1, after which the breaker lets no call pass for a time."""

    @property
    def recorded_error(self) -> str | None:
        return self.error_class or self.tried[-1].failure

    def had_delta(self, number: int) -> bool:
        """Whether attempt `number`, from 1, was a stream that came as far as its first delta."""
        if not self.streams or number < len(self.tried) or self.stop_reason == "refusal":
            return False
        return self.tried[-1].failure is None or bool(self.deltas)


OK = Tried()
CONNECTION = Tried(None, "connection")
MALFORMED = Tried(200, "malformed_response")
DEADLINE = "deadline_exceeded"
CANCELLED = "cancelled"
FIFTH = (5,)
"""A breaker trips after so many failures in a row."""


def at_any_time(*steps: Step) -> Callable[[datetime], tuple[Step, ...]]:
    return lambda _: steps


def in_seconds(seconds: float) -> Callable[[datetime], tuple[Step, ...]]:
    """429, to be asked again at a date."""
    return lambda now: (
        Step(status=429, headers={"retry-after": format_datetime(now + timedelta(seconds=seconds), usegmt=True)}),
    )


def limited(name: str, headers: dict[str, str], wait_s: float, asked_s: float | None) -> Case:
    return Case(
        name=name,
        steps=at_any_time(Step(status=429, headers=headers)),
        tried=(Tried(429, "rate_limited", asked_s), OK),
        waits_s=(wait_s,),
    )


def retried(status: int, failure: str, wait_s: float = 1) -> Case:
    return Case(
        name=f"{status} is tried again",
        steps=at_any_time(Step(status=status)),
        tried=(Tried(status, failure), OK),
        waits_s=(wait_s,),
    )


def given_up(status: int, failure: str, error: type[anthropic.APIStatusError]) -> Case:
    return Case(
        name=f"{status} is not tried again",
        steps=at_any_time(Step(status=status)),
        tried=(Tried(status, failure),),
        raises=Raises(error, status),
    )


def plain(name: str, tried: Tried, step: Step) -> Case:
    return Case(name=name, steps=at_any_time(step), tried=(tried, OK), waits_s=(1,))


def before(name: str, tried: Tried, step: Step, wait_s: float = 1) -> Case:
    """A stream that fails before its first delta, which the caller does not notice."""
    return Case(name=name, steps=at_any_time(step), tried=(tried, OK), waits_s=(wait_s,), streams=True)


def after(name: str, tried: Tried, step: Step, raises: Raises) -> Case:
    """A stream that fails after its first delta, which the caller has."""
    return Case(
        name=name,
        steps=at_any_time(step.model_copy(update={"after_deltas": 1})),
        tried=(tried,),
        raises=raises,
        streams=True,
        deltas=1,
    )


def unreachable(name: str, failure: str, where: Where, raises: type[BaseException], **changes: Any) -> Case:
    return Case(
        name=name,
        steps=at_any_time(),
        where=where,
        **{
            "tried": (Tried(None, failure),) * 5,
            "waits_s": (1, 2, 4, 8),
            "raises": Raises(raises),
            "trips": FIFTH,
            **changes,
        },
    )


def exhausted(
    name: str,
    step: Step,
    tried: Tried,
    waits_s: tuple[float, ...],
    raises: Raises | None,
    trips: tuple[int, ...] = FIFTH,
    policy: Mapping[str, Any] = MappingProxyType({}),
) -> Case:
    return Case(
        name=name,
        steps=at_any_time(step.model_copy(update={"times": 100})),
        tried=(tried,) * (len(waits_s) + 1),
        waits_s=waits_s,
        raises=raises,
        trips=trips,
        policy=policy,
    )


def slow(name: str, fault: Fault, **changes: Any) -> Case:
    """An answer that never comes to its end, against the caller's deadline."""
    return Case(
        name=name,
        steps=at_any_time(Step(fault=fault, byte_delay_s=0.02, text="word " * 1_000)),
        really=True,
        **{
            "tried": (Tried(None, DEADLINE),),
            "raises": Raises(DeadlineExceeded),
            "deadline_s": 0.3,
            **changes,
        },
    )


def event(error_type: str) -> Step:
    return Step(fault=Fault.ERROR_EVENT, error_type=error_type)


CASES = (
    limited("429 with retry-after", {"retry-after": "7"}, 7, 7),
    limited("429 with a fraction in retry-after", {"retry-after": "0.5"}, 0.5, 0.5),
    limited("429 with retry-after-ms", {"retry-after-ms": "1500"}, 1.5, 1.5),
    limited("429 with both, of which milliseconds count", {"retry-after": "9", "retry-after-ms": "250"}, 0.25, 0.25),
    limited("429 without a wait", {}, 60, None),
    limited("429 with a wait that is none", {"retry-after": "soon"}, 60, None),
    limited("429 with a negative wait", {"retry-after": "-5"}, 60, None),
    Case(
        name="429 with an HTTP date",
        steps=in_seconds(20),
        tried=(Tried(429, "rate_limited", 20), OK),
        waits_s=(20,),
    ),
    Case(
        name="429 with a date in the past",
        steps=in_seconds(-20),
        tried=(Tried(429, "rate_limited", 0), OK),
        waits_s=(1,),
    ),
    Case(
        name="429 with one day is given up at once",
        steps=at_any_time(Step(status=429, headers={"retry-after": "86400"})),
        tried=(Tried(429, "rate_limited", 86_400),),
        raises=Raises(anthropic.RateLimitError, 429),
    ),
    Case(
        name="429 with a date tomorrow is given up at once",
        steps=in_seconds(86_400),
        tried=(Tried(429, "rate_limited", 86_400),),
        raises=Raises(anthropic.RateLimitError, 429),
    ),
    retried(408, "request_timeout"),
    retried(409, "conflict"),
    retried(500, "server_error"),
    retried(502, "server_error"),
    retried(503, "server_error"),
    retried(504, "server_error"),
    retried(529, "overloaded", 2),
    Case(
        name="503 with retry-after",
        steps=at_any_time(Step(status=503, headers={"retry-after": "3"})),
        tried=(Tried(503, "server_error", 3), OK),
        waits_s=(3,),
    ),
    Case(
        name="529 with retry-after",
        steps=at_any_time(Step(status=529, headers={"retry-after": "5"})),
        tried=(Tried(529, "overloaded", 5), OK),
        waits_s=(5,),
    ),
    given_up(400, "invalid_request", anthropic.BadRequestError),
    given_up(401, "authentication", anthropic.AuthenticationError),
    given_up(403, "permission", anthropic.PermissionDeniedError),
    given_up(404, "not_found", anthropic.NotFoundError),
    given_up(413, "request_too_large", anthropic.RequestTooLargeError),
    given_up(422, "invalid_request", anthropic.UnprocessableEntityError),
    given_up(418, "client_error", anthropic.APIStatusError),
    Case(
        name="500 that must not be tried again, says the server",
        steps=at_any_time(Step(status=500, headers={"x-should-retry": "false"})),
        tried=(Tried(500, "server_error"),),
        raises=Raises(anthropic.InternalServerError, 500),
    ),
    Case(
        name="400 that may be tried again, says the server",
        steps=at_any_time(Step(status=400, headers={"x-should-retry": "true"})),
        tried=(Tried(400, "invalid_request"), OK),
        waits_s=(1,),
    ),
    plain("reset before the headers", CONNECTION, Step(fault=Fault.RESET_BEFORE_HEADERS)),
    plain("reset after the headers", CONNECTION, Step(fault=Fault.RESET_AFTER_HEADERS)),
    plain("reset in mid-body", CONNECTION, Step(fault=Fault.RESET_IN_BODY)),
    plain("closed before the headers", CONNECTION, Step(fault=Fault.CLOSED_BEFORE_HEADERS)),
    plain("truncated body", CONNECTION, Step(fault=Fault.TRUNCATED)),
    plain("malformed JSON", MALFORMED, Step(fault=Fault.MALFORMED_JSON)),
    plain("wrong content type", MALFORMED, Step(fault=Fault.WRONG_CONTENT_TYPE)),
    plain("empty body", MALFORMED, Step(fault=Fault.EMPTY_BODY)),
    Case(
        name="500 whose own body is cut off",
        steps=at_any_time(Step(status=500, fault=Fault.TRUNCATED)),
        tried=(CONNECTION, OK),
        waits_s=(1,),
    ),
    Case(
        name="500 in HTML",
        steps=at_any_time(Step(status=502, body="<html>", headers={"content-type": "text/html"})),
        tried=(Tried(502, "server_error"), OK),
        waits_s=(1,),
    ),
    unreachable("a name that does not resolve", "name_resolution", Where.NO_NAME, anthropic.APIConnectionError),
    unreachable("a server that speaks no TLS", "tls", Where.NO_TLS, anthropic.APIConnectionError),
    unreachable("connection refused", "connection", Where.REFUSED, anthropic.APIConnectionError),
    unreachable(
        "connect timeout",
        "timeout",
        Where.FULL,
        anthropic.APITimeoutError,
        policy={"retries": 1},
        tried=(Tried(None, "timeout"),) * 2,
        waits_s=(1,),
        timeout_s=0.1,
        trips=(),
    ),
    Case(
        name="read timeout",
        steps=at_any_time(Step(fault=Fault.SILENT)),
        tried=(Tried(None, "timeout"), OK),
        waits_s=(1,),
        timeout_s=0.25,
    ),
    slow("slow headers against the deadline", Fault.SLOW_HEADERS),
    slow("a slow body against the deadline", Fault.SLOW_BODY),
    slow("a slow stream against the deadline", Fault.SLOW_BODY, streams=True, tried=(Tried(200, DEADLINE),), deltas=0),
    slow("silence against the deadline", Fault.SILENT),
    slow("silence against the policy's deadline", Fault.SILENT, deadline_s=None, policy={"deadline_s": 0.3}),
    Case(
        name="refusal",
        steps=at_any_time(Step(stop_reason="refusal")),
        tried=(OK,),
        stop_reason="refusal",
    ),
    Case(
        name="refusal in a stream",
        steps=at_any_time(Step(stop_reason="refusal")),
        tried=(OK,),
        stop_reason="refusal",
        streams=True,
    ),
    Case(name="a good answer", steps=at_any_time(), tried=(OK,)),
    Case(name="a good stream", steps=at_any_time(), tried=(OK,), streams=True),
    Case(
        name="529 in the status of a stream",
        steps=at_any_time(Step(status=529)),
        tried=(Tried(529, "overloaded"), OK),
        waits_s=(2,),
        streams=True,
    ),
    before("overloaded before the first delta", Tried(200, "overloaded"), event("overloaded_error"), 2),
    before("api_error before the first delta", Tried(200, "server_error"), event("api_error")),
    before("stream reset before the headers", CONNECTION, Step(fault=Fault.RESET_BEFORE_HEADERS)),
    before("stream reset after the headers", Tried(200, "connection"), Step(fault=Fault.RESET_AFTER_HEADERS)),
    before("stream reset before the first delta", Tried(200, "connection"), Step(fault=Fault.RESET_IN_BODY)),
    before("stream cut before the first delta", Tried(200, "connection"), Step(fault=Fault.TRUNCATED)),
    before("stream without its end, before a delta", Tried(200, "truncated"), Step(fault=Fault.NO_MESSAGE_STOP)),
    before("malformed stream before the first delta", MALFORMED, Step(fault=Fault.MALFORMED_JSON)),
    before("empty stream", Tried(200, "truncated"), Step(fault=Fault.EMPTY_BODY)),
    before("a page of HTML for a stream", MALFORMED, Step(fault=Fault.WRONG_CONTENT_TYPE)),
    after(
        "overloaded after the first delta",
        Tried(200, "overloaded"),
        event("overloaded_error"),
        Raises(anthropic.APIStatusError, 200, "overloaded_error"),
    ),
    after(
        "api_error after the first delta",
        Tried(200, "server_error"),
        event("api_error"),
        Raises(anthropic.APIStatusError, 200, "api_error"),
    ),
    after(
        "stream reset after the first delta",
        Tried(200, "connection"),
        Step(fault=Fault.RESET_IN_BODY),
        Raises(httpx2.ReadError),
    ),
    after(
        "stream cut after the first delta",
        Tried(200, "connection"),
        Step(fault=Fault.TRUNCATED),
        Raises(httpx2.RemoteProtocolError),
    ),
    after(
        "stream without its end, after a delta",
        Tried(200, "truncated"),
        Step(fault=Fault.NO_MESSAGE_STOP),
        Raises(anthropic.APIConnectionError),
    ),
    after(
        "malformed stream after the first delta",
        MALFORMED,
        Step(fault=Fault.MALFORMED_JSON),
        Raises(json.JSONDecodeError),
    ),
    exhausted(
        "five times 500",
        Step(status=500),
        Tried(500, "server_error"),
        (1, 2, 4, 8),
        Raises(anthropic.InternalServerError, 500),
    ),
    exhausted(
        "five times 429",
        Step(status=429),
        Tried(429, "rate_limited"),
        (60, 60, 60, 60),
        Raises(anthropic.RateLimitError, 429),
        trips=(),
    ),
    exhausted(
        "seven times 529: overload has its own budget",
        Step(status=529),
        Tried(529, "overloaded"),
        OVERLOADED_WAITS_S,
        Raises(anthropic.OverloadedError, 529),
        trips=(5, 6, 7),
    ),
    exhausted(
        "seven times 529 without a breaker",
        Step(status=529),
        Tried(529, "overloaded"),
        OVERLOADED_WAITS_S,
        Raises(anthropic.OverloadedError, 529),
        trips=(),
        policy={"breaker": None},
    ),
    Case(
        name="a breaker that trips refuses the next attempt, without the wait before it",
        steps=at_any_time(Step(status=500, times=9)),
        tried=(Tried(500, "server_error"),) * 2,
        waits_s=(1,),
        raises=Raises(CircuitOpen, cause=anthropic.InternalServerError),
        policy={"breaker": {"jitter": 0, "consecutive_failures": 2}},
        trips=(2,),
        error_class="circuit_open",
    ),
    exhausted(
        "five resets",
        Step(fault=Fault.RESET_BEFORE_HEADERS),
        CONNECTION,
        (1, 2, 4, 8),
        Raises(anthropic.APIConnectionError),
    ),
    Case(
        name="five streams that fail before their first delta",
        steps=at_any_time(event("api_error").model_copy(update={"times": 5})),
        tried=(Tried(200, "server_error"),) * 5,
        waits_s=(1, 2, 4, 8),
        raises=Raises(anthropic.APIStatusError, 200, "api_error"),
        streams=True,
        deltas=0,
        trips=FIFTH,
    ),
    Case(
        name="an answer after four different failures",
        steps=at_any_time(
            Step(status=500), Step(fault=Fault.RESET_BEFORE_HEADERS), Step(status=408), Step(fault=Fault.TRUNCATED)
        ),
        tried=(Tried(500, "server_error"), CONNECTION, Tried(408, "request_timeout"), CONNECTION, OK),
        waits_s=(1, 2, 4, 8),
    ),
    Case(
        name="overload between other failures has waits of its own",
        steps=at_any_time(Step(status=500), Step(status=529), Step(status=503), Step(status=529)),
        tried=(
            Tried(500, "server_error"),
            Tried(529, "overloaded"),
            Tried(503, "server_error"),
            Tried(529, "overloaded"),
            OK,
        ),
        waits_s=(1, 2, 2, 4),
    ),
    Case(
        name="a 400 after a retry ends it",
        steps=at_any_time(Step(status=500), Step(status=400)),
        tried=(Tried(500, "server_error"), Tried(400, "invalid_request")),
        waits_s=(1,),
        raises=Raises(anthropic.BadRequestError, 400),
    ),
    Case(
        name="a wait past the deadline is not begun",
        steps=at_any_time(Step(status=500, times=5)),
        tried=(Tried(500, "server_error"),) * 3,
        waits_s=(1, 2),
        raises=Raises(anthropic.InternalServerError, 500),
        deadline_s=5,
    ),
    Case(
        name="60 s for a 429 do not fit into a deadline of 30",
        steps=at_any_time(Step(status=429)),
        tried=(Tried(429, "rate_limited"),),
        raises=Raises(anthropic.RateLimitError, 429),
        deadline_s=30,
    ),
    Case(
        name="no retries",
        steps=at_any_time(Step(status=500)),
        tried=(Tried(500, "server_error"),),
        raises=Raises(anthropic.InternalServerError, 500),
        policy={"retries": 0},
    ),
    exhausted(
        "malformed JSON to the end",
        Step(fault=Fault.MALFORMED_JSON),
        MALFORMED,
        (1,),
        Raises(json.JSONDecodeError),
        trips=(),
        policy={"retries": 1},
    ),
    exhausted(
        "a page of HTML to the end, which the SDK hands out as text",
        Step(fault=Fault.WRONG_CONTENT_TYPE),
        MALFORMED,
        (1,),
        None,
        trips=(),
        policy={"retries": 1},
    ),
    Case(
        name="waits of one's own",
        steps=at_any_time(Step(status=500, times=2)),
        tried=(Tried(500, "server_error"), Tried(500, "server_error"), OK),
        waits_s=(0.5, 3),
        policy={"waits_s": (0.5, 3)},
    ),
    Case(
        name="cancelled in a wait",
        steps=at_any_time(Step(status=500)),
        tried=(Tried(500, "server_error"),),
        waits_s=(1,),
        stops=Stop.IN_WAIT,
        error_class=CANCELLED,
    ),
    Case(
        name="cancelled in an attempt",
        steps=at_any_time(Step(fault=Fault.SILENT)),
        tried=(Tried(None, CANCELLED),),
        stops=Stop.IN_ATTEMPT,
    ),
    Case(
        name="tokens counted at the second attempt",
        steps=at_any_time(Step(status=529)),
        tried=(Tried(529, "overloaded"), OK),
        waits_s=(2,),
        counts=True,
    ),
)
