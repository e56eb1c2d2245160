"""A fleet's routing as its rulings leave it: who takes traffic, who stands in for whom, which rules are suspended."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from relight.events.base import Event
from relight.events.envelope import Recorded
from relight.events.failover import (
    FailoverAborted,
    FailoverCompleted,
    FailoverReturned,
    FailoverRuling,
    FailoverStarted,
    FleetRegion,
    FleetRuling,
    Manner,
    Override,
    Phase,
    Routing,
    StandIn,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingState:
    """What the rulings on a fleet come to; `routing` is None until it is declared. `at`: when the last was decided."""

    fleet: str
    rev: int = 0
    at: datetime | None = None
    event_id: str | None = None
    routing: Routing | None = None

    def moment(self, now: datetime) -> datetime:
        """The time of a ruling that follows: whoever decides may have a slow clock, and windows must not shrink."""
        return now if self.at is None else max(now, self.at)


def observe(state: RoutingState, event: Recorded[Event]) -> RoutingState:
    """The state after a ruling on this fleet; any other event, and a ruling that is not newer, leaves it as it is."""
    data = event.data
    if data.entity != state.fleet or (event.rev or 0) <= state.rev:
        return state
    match data:
        case FleetRuling():
            routing = data.routing
        case FailoverRuling():
            routing = data.routing or _by_its_facts(state.routing, event, data)
        case _:
            return state
    return RoutingState(
        fleet=state.fleet,
        rev=event.rev or 0,
        at=state.moment(event.decidedat or event.time),
        event_id=event.id,
        routing=routing,
    )


def under_way(routing: Routing) -> StandIn | None:
    """The one failover that is begun and not completed."""
    return next((one for one in routing.standing if one.phase is not Phase.COMPLETED), None)


def standing(routing: Routing, source: str) -> StandIn | None:
    """The failover by which traffic has left this region."""
    return next((one for one in routing.standing if one.source_region == source), None)


def moved(routing: Routing, region: str) -> str:
    """Who takes this region's traffic now: itself, or who stands in for it, or for that one in turn."""
    for _ in routing.standing:
        found = standing(routing, region)
        if found is None:
            break
        region = found.target_region
    return region


def carried(routing: Routing, region: str) -> tuple[str, ...]:
    """Whose traffic this region takes, its own first."""
    others = (one.source_region for one in routing.standing if moved(routing, one.source_region) == region)
    return (region, *(name for name in others if name != region))


def region_of(routing: Routing, name: str) -> FleetRegion | None:
    return next((region for region in routing.regions if region.name == name), None)


def may_stand_in(routing: Routing, source: str, target: str) -> bool:
    """Whether the source's data may go where the target is."""
    one, other = region_of(routing, source), region_of(routing, target)
    if one is None or other is None:
        return False
    return one.residency is None or other.residency == one.residency or target in one.allowed


def kept_in_place(routing: Routing) -> bool:
    """Whether all data is where it may be."""
    return all(may_stand_in(routing, one.source_region, moved(routing, one.source_region)) for one in routing.standing)


def begun_within(routing: Routing, now: datetime) -> tuple[datetime, ...]:
    """When failovers began that count now."""
    since = now - timedelta(seconds=routing.window_s)
    return tuple(begun for begun in routing.begun if begun > since)


def in_force(routing: Routing, now: datetime) -> Iterator[Override]:
    """Overrides that have not expired."""
    return (override for override in routing.overrides if override.expires_at > now)


def _by_its_facts(before: Routing | None, event: Recorded[Event], data: FailoverRuling) -> Routing:
    """What version 1 comes to, which did not carry the routing."""
    names = dict.fromkeys((*data.active_regions, data.source_region, data.target_region))
    if before is None:
        before = Routing(regions=tuple(FleetRegion(name=name) for name in names), active=data.active_regions)
    at = event.decidedat or event.time
    others = tuple(one for one in before.standing if one.source_region != data.source_region)
    found = standing(before, data.source_region)
    phase: Phase | None
    match data:
        case FailoverStarted():
            phase = Phase.DRAINING if data.manner is Manner.GRACEFUL else Phase.SWITCHING
        case FailoverCompleted():
            phase = Phase.COMPLETED
        case FailoverAborted() | FailoverReturned():
            phase = None
        case _:
            return before
    if phase is not None:
        one = StandIn(
            failover=found.failover if found else data.failover or event.id,
            source_region=data.source_region,
            target_region=data.target_region,
            phase=phase,
            begun_at=found.begun_at if found else at,
            since=at,
            policy_name=data.policy_name,
        )
        others = (*others, one)
    return before.model_copy(update={"active": data.active_regions, "standing": others})
