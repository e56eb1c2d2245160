"""A fleet's control subject in memory, with the policy's rules and an independent judge of all that stands on it."""

from dataclasses import replace
from datetime import timedelta

from folding import id_at, moment, wire

from relight.engine.policies.failover import check, observe, ruling
from relight.engine.policies.failover_commands import (
    Command,
    Complete,
    Declare,
    Life,
    Sight,
    Sights,
    Start,
)
from relight.engine.policies.routing import RoutingState, under_way
from relight.events.base import Event
from relight.events.catalog import decode
from relight.events.envelope import PLATFORM, Recorded
from relight.events.failover import (
    FleetRegion,
    Manner,
    StandBy,
)

NAMES = ("eu", "us", "ap", "sa")
FLEET = Declare(
    regions=(
        FleetRegion(name="eu", residency="eu", allowed=("us",)),
        FleetRegion(name="us", residency="us"),
        FleetRegion(name="ap"),
        FleetRegion(name="sa", residency="us"),
    ),
    policies=(
        StandBy(
            policy_name="eu-lost",
            source_region="eu",
            fallback_regions=("us",),
            conditions={"suspected_by": 2, "for_s": 2},
        ),
        StandBy(policy_name="ap-lost", source_region="ap", fallback_regions=("us", "eu", "sa")),
    ),
    max_failovers=2,
    window_s=60,
    drain_s=10,
)
FINE: Sights = {name: Sight(life=Life.ALIVE, caught_up=True) for name in NAMES}


class Subject:
    """A control subject: what is appended to it, one after the other."""

    def __init__(self) -> None:
        self.events: list[Recorded[Event]] = []
        self.state = RoutingState(fleet="agents")

    def ask(self, command: Command, seconds: float, sights: Sights = FINE, *, after: RoutingState | None = None) -> str:
        """`ruled`, `superseded` where `after` is not what stands here, or the name of the rule that is broken."""
        state = after or self.state
        now = moment(0) + timedelta(seconds=seconds)
        results = check(state, command, now, sights)
        broken = next((result for result in results if not result.passes), None)
        if broken is not None:
            assert broken.detail
            return broken.rule.value
        if state.rev != self.state.rev:
            return "superseded"
        id = id_at(len(self.events) + 1)
        data = ruling(state, command, now, id, results)
        _, body, _ = wire(data, id=id, time=state.moment(now), tenant=PLATFORM, region="eu", rev=state.rev + 1)
        event = decode(body)
        self.events.append(event)
        self.state = observe(self.state, event)
        return "ruled"


def declared() -> Subject:
    subject = Subject()
    assert subject.ask(FLEET, 0) == "ruled"
    return subject


def start(source: str = "eu", target: str = "us", **changes: object) -> Start:
    command = Start(source=source, target=target, manner=Manner.FORCED, reason="it burns", ordered_by="kim")
    return replace(command, **changes)  # type: ignore[arg-type]


def seen(**changes: Sight) -> Sights:
    return {**FINE, **changes}


def completed(subject: Subject, source: str, target: str, seconds: float) -> str:
    assert subject.ask(start(source, target), seconds) == "ruled"
    going = under_way(subject.state.routing)  # type: ignore[arg-type]
    assert going is not None
    ready = seen(**{target: Sight(life=Life.ALIVE, ready_for=going.failover)})
    assert subject.ask(Complete(failover=going.failover, reason="done"), seconds, ready) == "ruled"
    return going.failover
