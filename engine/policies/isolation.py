"""When a fault domain is cut off and let in again: a quorum of regions that miss its heartbeats, or hear them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from relight.events.base import Event
from relight.events.envelope import Recorded
from relight.events.faults import (
    DomainType,
    FaultDetected,
    FaultIsolated,
    FaultRecovered,
    FaultRecovering,
    FaultRuling,
    FaultSuspected,
    FaultVote,
)

MAX_NAMED = 1_000
"""Voters that a ruling names; no event holds more keys."""
MAX_VOTE_S = 3_600

Seconds = Annotated[float, Field(ge=0, le=MAX_VOTE_S, allow_inf_nan=False)]
Ruled = FaultDetected | FaultIsolated | FaultRecovering | FaultRecovered


class State(StrEnum):
    HEALTHY = "healthy"
    DETECTED = "detected"
    ISOLATED = "isolated"
    RECOVERING = "recovering"


class IsolationPolicy(BaseModel):
    """What a quorum is, and how long it has to last.

    `regions` may vote, each with one vote; a region has none on itself. `quorum` of them rule. `vote_s` is how long a
    suspicion counts unless it is said again: an observer that is gone keeps nobody out. `for_s`: so long a quorum has
    to stand before it isolates. `after_detection_s`: and so long the detection, for votes that waited for an election
    are old news when they come, and what takes them back may be on its way. `steady_s`: between a quorum that hears an
    isolated domain and its recovery. `settle_s`: for so long an observer has to hear a domain before it trusts it
    again, and anybody at all before it votes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    regions: Annotated[tuple[str, ...], Field(min_length=1)]
    quorum: Annotated[int, Field(ge=1)]
    vote_s: Annotated[float, Field(gt=0, le=MAX_VOTE_S)] = 30
    for_s: Seconds = 2
    after_detection_s: Seconds = 0.5
    steady_s: Seconds = 5
    settle_s: Seconds = 2

    @classmethod
    def of(cls, regions: Iterable[str], **seconds: float) -> Self:
        """A majority of these regions. Of two it takes both, and neither votes on itself: so nothing is ruled."""
        names = tuple(sorted(set(regions)))
        return cls.model_validate({**seconds, "regions": names, "quorum": len(names) // 2 + 1})


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """An observer's last word: of two words that with the higher event `id`, whichever came first."""

    id: str
    observer: str
    region: str
    at: datetime
    suspects: bool
    since: datetime
    phi: float
    silent_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainState:
    """What rulings and votes on one domain come to. Votes may come in any order, and more than once.

    `ruling_id` is the last ruling's event. `by_votes`: it rests on votes; what was ruled for another reason is not
    undone by them.
    """

    domain_type: DomainType
    domain_identifier: str
    state: State = State.HEALTHY
    rev: int = 0
    ruling_id: str = ""
    by_votes: bool = False
    ruled_at: datetime | None = None
    detected_at: datetime | None = None
    isolated_at: datetime | None = None
    isolation_reason: str | None = None
    votes: Mapping[str, Vote] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def domain(self) -> str:
        return f"{self.domain_type.value}:{self.domain_identifier}"

    def suspecting(self, now: datetime, policy: IsolationPolicy) -> list[Vote]:
        """Whose suspicion counts now, by name."""
        return [vote for vote in self._counted(now, policy) if vote.suspects]

    def trusting(self, now: datetime, policy: IsolationPolicy) -> list[Vote]:
        """Who hears the domain; of an isolated one, only who said so since: its clock was past the ruling then."""
        after = self.ruling_id if self.state is State.ISOLATED else ""
        return [vote for vote in self._counted(now, policy) if not vote.suspects and vote.id > after]

    def voting_regions(self, policy: IsolationPolicy) -> tuple[str, ...]:
        """Who may vote on this domain: a region has no vote on itself."""
        own = self.domain_identifier if self.domain_type is DomainType.REGION else None
        return tuple(region for region in policy.regions if region != own)

    def _counted(self, now: datetime, policy: IsolationPolicy) -> list[Vote]:
        regions, oldest = self.voting_regions(policy), now - timedelta(seconds=policy.vote_s)
        counted = [vote for vote in self.votes.values() if vote.region in regions and vote.at > oldest]
        return sorted(counted, key=lambda vote: vote.observer)


def observe(state: DomainState, event: Recorded[Event]) -> DomainState:
    """The state after an event on this domain; any other leaves it as it is, and so does an older ruling or vote."""
    data = event.data
    match data:
        case FaultVote() if data.domain == state.domain:
            return _voted(state, event, data)
        case FaultRuling() if data.domain == state.domain and (event.rev or 0) > state.rev:
            return _ruled(state, event, data)
    return state


def decide(state: DomainState, now: datetime, policy: IsolationPolicy) -> list[Ruled]:
    """What has to be ruled now: one event, or none."""
    suspecting, trusting = state.suspecting(now, policy), state.trusting(now, policy)
    missed = _is_quorum(suspecting, policy)
    match state.state:
        case State.HEALTHY:
            return [FaultDetected(**_evidence(state, suspecting, policy, _silence(suspecting)))] if missed else []
        case State.DETECTED:
            if missed:
                lasts = now >= _lasts_from(state, suspecting, policy)
                return [_isolated(state, suspecting, policy)] if lasts else []
            if state.by_votes and _calm(state, now, policy):
                return [_recovered(state, trusting, policy, "no quorum of regions misses it any more")]
        case State.ISOLATED:
            if state.by_votes and not missed and _is_quorum(trusting, policy):
                return [_recovering(state, trusting, now, policy)]
        case State.RECOVERING:
            if missed:
                return [_isolated(state, suspecting, policy)]
            if state.by_votes and _is_quorum(trusting, policy) and _calm(state, now, policy):
                return [_recovered(state, trusting, policy, f"its heartbeats came for {policy.steady_s:g} s")]
    return []


def due_at(state: DomainState, now: datetime, policy: IsolationPolicy) -> datetime | None:
    """When time alone may change what is decided, if it may."""
    match state.state:
        case State.DETECTED if _is_quorum(found := state.suspecting(now, policy), policy):
            return _lasts_from(state, found, policy)
        case State.DETECTED | State.RECOVERING if state.by_votes:
            return _calm_since(state, now, policy) + timedelta(seconds=policy.steady_s)
    return None


def _voted(state: DomainState, event: Recorded[Event], data: FaultVote) -> DomainState:
    before = state.votes.get(data.observer)
    if before is not None and before.id >= event.id:
        return state
    vote = Vote(
        id=event.id,
        observer=data.observer,
        region=data.observer_region,
        at=event.time,
        suspects=isinstance(data, FaultSuspected),
        since=data.since,
        phi=data.phi,
        silent_ms=data.silent_ms,
    )
    return replace(state, votes=MappingProxyType({**state.votes, data.observer: vote}))


def _ruled(state: DomainState, event: Recorded[Event], data: FaultRuling) -> DomainState:
    at = event.decidedat or event.time
    said = replace(
        state, rev=event.rev or 0, ruling_id=event.id, by_votes=data.voters is not None, ruled_at=at, isolated_at=None
    )
    match data:
        case FaultDetected():
            return replace(said, state=State.DETECTED, detected_at=at, isolation_reason=None)
        case FaultIsolated():
            reason = data.cause
            return replace(
                said,
                state=State.ISOLATED,
                detected_at=data.detected_at,
                isolated_at=at,
                isolation_reason=reason,
            )
        case FaultRecovering():
            return replace(
                said,
                state=State.RECOVERING,
                detected_at=data.detected_at,
                isolated_at=data.isolated_at,
                isolation_reason=data.isolation_reason,
            )
        case FaultRecovered():
            return replace(said, state=State.HEALTHY, detected_at=None, isolation_reason=None)
    return state


def _is_quorum(votes: list[Vote], policy: IsolationPolicy) -> bool:
    return len({vote.region for vote in votes}) >= policy.quorum


def _lasts_from(state: DomainState, suspecting: list[Vote], policy: IsolationPolicy) -> datetime:
    """When a quorum of regions that never took its votes back will have stood for long enough."""
    first: dict[str, datetime] = {}
    for vote in suspecting:
        first[vote.region] = min(vote.since, first.get(vote.region, vote.since))
    since = sorted(first.values())[policy.quorum - 1]
    assert state.ruled_at is not None
    return max(since + timedelta(seconds=policy.for_s), state.ruled_at + timedelta(seconds=policy.after_detection_s))


def _calm_since(state: DomainState, now: datetime, policy: IsolationPolicy) -> datetime:
    """Since when no vote against the domain was taken back or grew old: those that stand are too few to matter."""
    kept = timedelta(seconds=policy.vote_s)
    moments = [vote.at + kept for vote in state.votes.values() if vote.suspects and vote.at + kept <= now]
    moments += [vote.since for vote in state.votes.values() if not vote.suspects]
    assert state.ruled_at is not None
    return max([state.ruled_at, *moments])


def _calm(state: DomainState, now: datetime, policy: IsolationPolicy) -> bool:
    return now >= _calm_since(state, now, policy) + timedelta(seconds=policy.steady_s)


def _isolated(state: DomainState, suspecting: list[Vote], policy: IsolationPolicy) -> FaultIsolated:
    said = _evidence(state, suspecting, policy, _silence(suspecting))
    return FaultIsolated(**said, detected_at=state.detected_at)


def _recovering(state: DomainState, trusting: list[Vote], now: datetime, policy: IsolationPolicy) -> FaultRecovering:
    said = _evidence(state, trusting, policy, f"{_regions(trusting)} hear its heartbeats again")
    return FaultRecovering(
        **said,
        detected_at=state.detected_at,
        isolated_at=state.isolated_at or state.ruled_at or now,
        isolation_reason=state.isolation_reason or "",
    )


def _recovered(state: DomainState, trusting: list[Vote], policy: IsolationPolicy, cause: str) -> FaultRecovered:
    return FaultRecovered(
        **_evidence(state, trusting, policy, cause),
        detected_at=state.detected_at,
        isolated_at=state.isolated_at,
        isolation_reason=state.isolation_reason,
    )


def _evidence(state: DomainState, votes: list[Vote], policy: IsolationPolicy, cause: str) -> dict[str, Any]:
    regions = sorted({vote.region for vote in votes})
    return {
        "domain_type": state.domain_type,
        "domain_identifier": state.domain_identifier,
        "cause": cause,
        "scope": _SCOPES.get(state.domain_type, "all that depends on it"),
        "confidence": len(regions) / len(state.voting_regions(policy)),
        "voters": tuple(vote.observer for vote in votes)[:MAX_NAMED],
        "voter_regions": tuple(regions)[:MAX_NAMED],
        "phi": min((vote.phi for vote in votes), default=None),
    }


_SCOPES = {DomainType.REGION: "all that runs in this region", DomainType.ENGINE: "the tasks that it holds"}


def _silence(votes: list[Vote]) -> str:
    silent_s = min((vote.silent_ms for vote in votes), default=0) / 1_000
    return f"{_regions(votes)} heard nothing of it for {silent_s:.1f} s"


def _regions(votes: list[Vote]) -> str:
    *others, last = sorted({vote.region for vote in votes}) or [""]
    return f"{', '.join(others)} and {last}" if others else last


def ruling_of(events: list[Recorded[Event]], ruling: Recorded[Event], policy: IsolationPolicy) -> Ruled | None:
    """What the decider makes of the events that a recorded ruling rests on, at the time at which it was decided."""
    assert isinstance(ruling.data, FaultRuling)
    state = DomainState(domain_type=ruling.data.domain_type, domain_identifier=ruling.data.domain_identifier)
    for event in events:
        state = observe(state, event)
    return next(iter(decide(state, ruling.decidedat or ruling.time, policy)), None)
