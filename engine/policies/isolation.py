"""When a fault domain is cut off and let in again: a quorum of regions that miss its heartbeats, or hear them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Self

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
    FaultTrusted,
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
    suspicion counts unless it is said again: an observer that is gone keeps nobody out. `for_s`: between detection and
    isolation. `steady_s`: between a quorum that hears an isolated domain and its recovery.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    regions: Annotated[tuple[str, ...], Field(min_length=1)]
    quorum: Annotated[int, Field(ge=1)]
    vote_s: Annotated[float, Field(gt=0, le=MAX_VOTE_S)] = 30
    for_s: Seconds = 2
    steady_s: Seconds = 5

    @classmethod
    def of(cls, regions: Iterable[str], *, for_s: float = 2, steady_s: float = 5, vote_s: float = 30) -> Self:
        """A majority of these regions. Of two it takes both, and neither votes on itself: so nothing is ruled."""
        names = tuple(sorted(set(regions)))
        return cls(regions=names, quorum=len(names) // 2 + 1, for_s=for_s, steady_s=steady_s, vote_s=vote_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """An observer's last word; `id` of the event, by which later words are told from earlier ones."""

    id: str
    observer: str
    region: str
    at: datetime
    suspects: bool
    phi: float
    silent_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainState:
    """What rulings and votes on one domain come to. Votes may come in any order, and more than once."""

    domain_type: DomainType
    domain_identifier: str
    state: State = State.HEALTHY
    rev: int = 0
    since: datetime | None = None
    detected_at: datetime | None = None
    isolated_at: datetime | None = None
    isolation_reason: str | None = None
    votes: Mapping[str, Vote] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def domain(self) -> str:
        return f"{self.domain_type.value}:{self.domain_identifier}"

    def suspecting(self, now: datetime, policy: IsolationPolicy) -> list[Vote]:
        """Whose suspicion counts now, by name."""
        return self._of(policy, lambda vote: vote.suspects and vote.at > now - timedelta(seconds=policy.vote_s))

    def trusting(self, policy: IsolationPolicy) -> list[Vote]:
        """Who heard the domain again after it was isolated."""
        after = self.isolated_at
        return self._of(policy, lambda vote: not vote.suspects and (after is None or vote.at > after))

    def _of(self, policy: IsolationPolicy, counts: "Callable[[Vote], bool]") -> list[Vote]:
        own = self.domain_identifier if self.domain_type is DomainType.REGION else None
        found = [v for v in self.votes.values() if v.region in policy.regions and v.region != own and counts(v)]
        return sorted(found, key=lambda vote: vote.observer)
