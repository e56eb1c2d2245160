"""When a whole fleet lets no call through to a dependency: a quorum of its processes, over several fault domains."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from relight.events.base import Event
from relight.events.breakers import BreakerClosed, BreakerHalfOpened, BreakerOpened, BreakerReset, BreakerTripped
from relight.events.envelope import Recorded

MAX_VOTE_S = 3_600
MAX_NAMED = 1_000
"""Voters that a ruling names; no event holds more keys."""

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Ruled = BreakerOpened | BreakerHalfOpened | BreakerClosed


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Opening(BaseModel):
    """How long a breaker is open: `open_s`, and `growth` times as long each time that a probe fails, up to a cap."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    open_s: Seconds = 30
    growth: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2
    open_max_s: Seconds = 600
    probes: Annotated[int, Field(ge=1, le=1_000)] = 1
    """Calls that may pass half-open."""
    successes: Annotated[int, Field(ge=1)] = 1
    """Of them, what closes it."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.successes > self.probes:
            raise ValueError(f"{self.successes} successes cannot come of {self.probes} probes: allow more probes")
        if self.open_max_s < self.open_s:
            raise ValueError(f"open_max_s {self.open_max_s:g} is below open_s {self.open_s:g}: raise it")
        return self

    def lasts_s(self, openings: int) -> float:
        """How long the opening with this number lasts; the first is 1."""
        return float(min(self.open_s * self.growth ** min(openings - 1, 64), self.open_max_s))


class FleetPolicy(Opening):
    """What a quorum is, how long a vote counts, and for how long a process has the probes to itself."""

    quorum_processes: Annotated[int, Field(ge=1)] = 3
    quorum_fault_domains: Annotated[int, Field(ge=1)] = 2
    vote_s: Annotated[float, Field(gt=0, le=MAX_VOTE_S)] = 120
    lease_s: Seconds = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """A process's last word."""

    process: str
    fault_domain: str
    at: datetime
    failure_count: int = 0
    withdrawn: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetState:
    """What rulings and votes on one breaker come to. Times are those that the events say.

    `answer`: what the holder said of its probes, None while it has not.
    """

    service_name: str
    state: State = State.CLOSED
    rev: int = 0
    since: datetime | None = None
    reason: str = ""
    failure_count: int = 0
    openings: int = 0
    opened_at: datetime | None = None
    next_retry_at: datetime | None = None
    holder: str | None = None
    lease_until: datetime | None = None
    probes: int = 0
    answer: Vote | None = None
    votes: Mapping[str, Vote] = field(default_factory=lambda: MappingProxyType({}))

    def voters(self, now: datetime, policy: FleetPolicy) -> list[Vote]:
        """Whose votes count now, by name."""
        counted = [vote for vote in self.votes.values() if not vote.withdrawn and _counts(vote, now, policy)]
        return sorted(counted, key=lambda vote: vote.process)


def observe(state: FleetState, event: Recorded[Event]) -> FleetState:
    """The state after an event on this breaker, in the stream's order; any other leaves it as it is.

    A ruling that is not newer than the last one changes nothing.
    """
    data = event.data
    if data.entity != state.service_name:
        return state
    match data:
        case BreakerTripped():
            vote = Vote(
                process=data.process,
                fault_domain=data.fault_domain,
                at=event.time,
                failure_count=data.failure_count,
            )
            return _voted(state, vote)
        case BreakerReset():
            return _voted(
                state, Vote(process=data.process, fault_domain=data.fault_domain, at=event.time, withdrawn=True)
            )
        case BreakerOpened() | BreakerHalfOpened() | BreakerClosed():
            return _ruled(state, event, data) if (event.rev or 0) > state.rev else state
    return state


def decide(state: FleetState, now: datetime, policy: FleetPolicy, *, caller: str | None = None) -> list[Ruled]:
    """What has to be ruled now: one event, or none.

    `caller` is a process with a call to make, which would hold the probes. That is the one input that no event tells
    of: the ruling itself names it.
    """
    match state.state:
        case State.CLOSED:
            return _tripped(state, now, policy)
        case State.OPEN:
            due = state.next_retry_at is None or now >= state.next_retry_at
            return [_leased(state, now, policy, caller)] if due and caller is not None else []
        case State.HALF_OPEN:
            if state.answer is None or not _counts(state.answer, now, policy):
                free = state.lease_until is None or now >= state.lease_until
                return [_leased(state, now, policy, caller)] if free and caller is not None else []
            probes = f"the probe of {state.holder}" if state.probes <= 1 else f"the probes of {state.holder}"
            if state.answer.withdrawn:
                said = "was answered" if state.probes <= 1 else "were answered"
                return [BreakerClosed(service_name=state.service_name, reason=f"{probes} {said}")]
            return [_opened(state, now, policy, reason=f"{probes} failed")]


def expecting(state: FleetState, ruling: Ruled, now: datetime) -> FleetState:
    """The state of a process that sees a quorum and waits for the ruling: open already, under the old revision.

    Writing the ruling may have to wait for whatever else the stream writes just then; refusing calls need not.
    """
    if state.state is not State.CLOSED or not isinstance(ruling, BreakerOpened):
        return state
    return replace(
        state,
        state=State.OPEN,
        since=now,
        reason=ruling.reason,
        failure_count=ruling.failure_count,
        openings=1,
        opened_at=now,
        next_retry_at=ruling.next_retry_at,
    )


def _voted(state: FleetState, vote: Vote) -> FleetState:
    """Of one process the latest word counts, in whatever order they come; none from before a breaker was closed."""
    if state.state is State.HALF_OPEN and vote.process == state.holder and _after(vote.at, state.since):
        state = replace(state, answer=vote)
    elif state.state is State.CLOSED and not _after(vote.at, state.since):
        return state
    if (before := state.votes.get(vote.process)) is not None and before.at > vote.at:
        return state
    oldest = vote.at - timedelta(seconds=MAX_VOTE_S)
    votes = {process: other for process, other in state.votes.items() if other.at > oldest}
    return replace(state, votes=MappingProxyType({**votes, vote.process: vote}))


def _counts(vote: Vote, now: datetime, policy: FleetPolicy) -> bool:
    return vote.at > now - timedelta(seconds=policy.vote_s)


def _after(moment: datetime, since: datetime | None) -> bool:
    return since is None or moment >= since


def _ruled(state: FleetState, event: Recorded[Event], data: Ruled) -> FleetState:
    at = event.decidedat or event.time
    said = replace(
        state, rev=event.rev or 0, since=at, reason=data.reason, holder=None, lease_until=None, probes=0, answer=None
    )
    match data:
        case BreakerOpened():
            retry_at = data.next_retry_at
            if state.state is State.OPEN and state.next_retry_at is not None:
                retry_at = max(retry_at, state.next_retry_at)  # a deadline never gets shorter
            return replace(
                said,
                state=State.OPEN,
                failure_count=data.failure_count,
                openings=data.openings or state.openings + 1,
                opened_at=at,
                next_retry_at=retry_at,
            )
        case BreakerHalfOpened():
            return replace(
                said,
                state=State.HALF_OPEN,
                failure_count=data.failure_count,
                openings=data.openings or max(state.openings, 1),
                opened_at=data.opened_at,
                next_retry_at=None,
                holder=data.holder,
                lease_until=data.lease_until,
                probes=data.probes or 1,
            )
        case BreakerClosed():
            return FleetState(
                service_name=state.service_name, rev=event.rev or 0, since=at, reason=data.reason
            )  # votes from before it have had their effect


def _tripped(state: FleetState, now: datetime, policy: FleetPolicy) -> list[Ruled]:
    voters = state.voters(now, policy)
    domains = {vote.fault_domain for vote in voters}
    if len(voters) < policy.quorum_processes or len(domains) < policy.quorum_fault_domains:
        return []
    return [_opened(state, now, policy, reason=f"{len(voters)} processes in {len(domains)} fault domains tripped")]


def _opened(state: FleetState, now: datetime, policy: FleetPolicy, *, reason: str) -> BreakerOpened:
    voters = state.voters(now, policy)
    openings = state.openings + 1
    failures = sum(vote.failure_count for vote in voters)
    begins = now if state.since is None else max(now, state.since)  # whoever decides may have a slow clock
    return BreakerOpened(
        service_name=state.service_name,
        reason=reason,
        failure_count=max(failures, state.failure_count),
        next_retry_at=begins + timedelta(seconds=policy.lasts_s(openings)),
        processes=tuple(vote.process for vote in voters[:MAX_NAMED]),
        fault_domains=tuple(sorted({vote.fault_domain for vote in voters})[:MAX_NAMED]),
        openings=openings,
    )


def _leased(state: FleetState, now: datetime, policy: FleetPolicy, caller: str) -> BreakerHalfOpened:
    taken_over = state.holder is not None
    return BreakerHalfOpened(
        service_name=state.service_name,
        reason=f"{state.holder} did not use its lease in time" if taken_over else "its time to retry has come",
        failure_count=state.failure_count,
        opened_at=state.opened_at or now,
        holder=caller,
        lease_until=now + timedelta(seconds=policy.lease_s),
        probes=policy.probes,
        openings=max(state.openings, 1),
    )


def ruling_of(events: list[Recorded[Event]], ruling: Recorded[Event], policy: FleetPolicy) -> Ruled | None:
    """What the decider makes of the events that a recorded ruling rests on, at the time at which it was decided."""
    state = FleetState(service_name=ruling.data.entity)
    for event in events:
        state = observe(state, event)
    caller = ruling.data.holder if isinstance(ruling.data, BreakerHalfOpened) else None
    return next(iter(decide(state, ruling.decidedat or ruling.time, policy, caller=caller)), None)
