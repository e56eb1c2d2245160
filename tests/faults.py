"""What a fault script and what must come of it are made of, and the kinds of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import format_datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import anthropic

from relight.engine.errors import DeadlineExceeded
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
