"""What can be asked of a fleet's routing, what is seen of its regions, and the rules that an answer keeps, by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from relight.events.failover import FleetRegion, Manner, StandBy
from relight.events.values import Content

MAX_OVERRIDE = timedelta(days=1)
MAX_OVERRIDES = 20


class Rule(StrEnum):
    """What has to hold for a ruling; an operator may suspend some for a while (`OVERRIDABLE`)."""

    DECLARED = "declared"
    KNOWN_REGIONS = "known_regions"
    NOT_ONTO_ITSELF = "not_onto_itself"
    ORDERED = "ordered"
    """by a policy in force, or by a named operator, with a reason"""
    SOURCE_ACTIVE = "source_active"
    SOURCE_ALIVE = "source_alive"
    TARGET_ACTIVE = "target_active"
    TARGET_ALIVE = "target_alive"
    TARGET_ALLOWED = "target_allowed"
    TARGET_READY = "target_ready"
    NEVER_ZERO_ACTIVE = "never_zero_active"
    ONE_AT_A_TIME = "one_at_a_time"
    UNDER_WAY = "under_way"
    STANDS = "stands"
    CAUGHT_UP = "caught_up"
    RESIDENCY = "residency"
    CHANGES_PER_WINDOW = "changes_per_window"
    OVERRIDABLE = "overridable"
    OVERRIDE_EXPIRES = "override_expires"
    SAYABLE = "sayable"
    """in an event: names and texts are not too long, limits are possible"""


OVERRIDABLE = frozenset(
    (Rule.TARGET_ALLOWED, Rule.TARGET_READY, Rule.CAUGHT_UP, Rule.RESIDENCY, Rule.CHANGES_PER_WINDOW)
)


class Life(StrEnum):
    """What is thought of a region."""

    ALIVE = "alive"
    SUSPECTED = "suspected"
    ISOLATED = "isolated"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What is known of a region from outside its rulings.

    `suspected_by` so many other regions, without a break `since`. `caught_up`: it has all of the log. `ready_for` and
    `drained_for` are failovers of which it says so itself, as the target and as the source.
    """

    life: Life = Life.UNKNOWN
    suspected_by: int = 0
    since: datetime | None = None
    caught_up: bool = False
    ready_for: str | None = None
    drained_for: str | None = None


Sights = Mapping[str, Sight]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Begins a failover; with `failover`, goes on with that one: forced, or to another target."""

    source: str
    target: str
    manner: Manner
    reason: str
    policy_name: str | None = None
    ordered_by: str | None = None
    confidence: float | None = None
    failover: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete:
    failover: str
    reason: str
    receipt: Content | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    """Gives the source its traffic back before the target had all of it."""

    failover: str
    reason: str
    ordered_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Back:
    """Gives the source its traffic back after a completed failover."""

    source: str
    reason: str
    ordered_by: str | None = None
    receipt: Content | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspend:
    """Suspends rules until a time."""

    rules: tuple[str, ...]
    expires_at: datetime
    ordered_by: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore:
    """Takes an override back; without an operator only one that has expired."""

    override: str
    reason: str
    ordered_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Declare:
    """What the fleet is to be."""

    regions: tuple[FleetRegion, ...]
    policies: tuple[StandBy, ...] = ()
    max_failovers: int = 3
    window_s: int = 600
    drain_s: int = 20
    ordered_by: str | None = None
    reason: str = "the topology says so"


Command = Start | Complete | Abort | Back | Suspend | Restore | Declare


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleResult:
    """Whether a rule holds, and why; a broken one may be suspended by an override."""

    rule: Rule
    held: bool
    detail: str
    override: str | None = None

    @property
    def passes(self) -> bool:
        return self.held or self.override is not None
