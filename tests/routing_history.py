"""An independent judge of a fleet's whole history of rulings: it shares no code with the policy that made them."""

from collections.abc import Sequence
from datetime import timedelta

from relight.events.base import Event
from relight.events.envelope import Recorded
from relight.events.failover import (
    FailoverAborted,
    FailoverCompleted,
    FailoverReturned,
    FailoverStarted,
    FleetDeclared,
    Manner,
    OverrideEnded,
    Routing,
    RoutingRuling,
    RulesOverridden,
)

DAY = timedelta(days=1)


class Judge:
    """Takes rulings in the order of their subject; `judge` raises `AssertionError` at the first that breaks a rule."""

    def __init__(self, *, dead: frozenset[str] = frozenset()) -> None:
        self.dead = dead
        """Regions that nothing may be moved to, all the time."""
        self.regions: dict[str, tuple[str | None, tuple[str, ...]]] = {}
        self.active: set[str] = set()
        self.moves: dict[str, str] = {}
        self.open: dict[str, tuple[str, str]] = {}
        self.completed: dict[str, str] = {}
        self.begun: list[object] = []
        self.suspended: dict[str, tuple[tuple[str, ...], object]] = {}
        self.limits = (0, timedelta())
        self.rev = 0
        self.failovers = 0

    def judge(self, events: Sequence[Recorded[Event]]) -> "Judge":
        for event in events:
            data = event.data
            assert isinstance(data, RoutingRuling)
            self.rev += 1
            assert event.rev == self.rev, "no revision is missing or stands twice"
            self._one(event, data)
            routing: Routing | None = getattr(data, "routing", None)
            assert routing is not None
            said: set[str] = set(getattr(data, "active_regions", ()))
            assert said, "a region takes traffic"
            assert said == self.active == set(routing.active)
            assert {one.source_region: one.target_region for one in routing.standing} == self.moves
            assert len(self.open) <= 1, "no two failovers overlap"
            for region in self.regions:
                assert self._moved(region) in self.active, f"traffic of {region} goes somewhere"
            kept = all(self._may(source, self._moved(source)) for source in self.moves)
            assert getattr(data, "compliance_preserved", None) == kept, "it is said where data had to stay"
        return self

    def _one(self, event: Recorded[Event], data: RoutingRuling) -> None:
        at = event.decidedat
        assert at is not None
        match data:
            case FleetDeclared():
                before = set(self.regions)
                self.regions = {one.name: (one.residency, one.allowed) for one in data.routing.regions}
                self.active = {name for name in self.regions if name in self.active or name not in before}
                self.limits = (data.routing.max_failovers, timedelta(seconds=data.routing.window_s))
                for policy in data.routing.policies:
                    assert policy.source_region not in policy.fallback_regions
                    assert all(self._may(policy.source_region, name) for name in policy.fallback_regions)
            case FailoverStarted() if data.failover == event.id:
                assert not self.open, "none is under way"
                assert data.source_region in self.active
                self._to(data, at)
                most, window = self.limits
                recent = [one for one in self.begun if one > at - window]  # type: ignore[operator]
                assert len(recent) < most or self._suspends("changes_per_window", at)
                self.begun.append(at)
                self.failovers += 1
                self.open[event.id] = (data.source_region, data.manner)
                self.active.discard(data.source_region)
                self.moves[data.source_region] = data.target_region
            case FailoverStarted():
                source, _ = self.open[data.failover or ""]
                assert (source, data.manner) == (data.source_region, Manner.FORCED)
                self._to(data, at)
                self.open[data.failover or ""] = (source, data.manner)
                self.moves[source] = data.target_region
            case FailoverCompleted():
                source, manner = self.open.pop(data.failover or "")
                assert manner == Manner.FORCED, "a drain is over before it completes"
                self.completed[source] = data.failover or ""
            case FailoverAborted():
                source, _ = self.open.pop(data.failover or "")
                del self.moves[source]
                self.active.add(source)
            case FailoverReturned():
                assert not self.open
                assert self.completed.pop(data.source_region) == data.failover
                del self.moves[data.source_region]
                self.active.add(data.source_region)
            case RulesOverridden():
                assert at < (data.expires_at or at) <= at + DAY
                assert data.ordered_by
                assert data.reason
                self.suspended[event.id] = (data.rules, data.expires_at)
            case OverrideEnded():
                _, expires_at = self.suspended.pop(data.override)
                assert data.ordered_by or expires_at <= at  # type: ignore[operator]
            case _:
                raise AssertionError(f"{event.type} is no ruling on a routing")

    def _to(self, data: FailoverStarted, at: object) -> None:
        source, target = data.source_region, data.target_region
        assert source != target
        assert target in self.active
        assert target not in self.dead
        carried = [source, *(name for name in self.moves if self._moved(name) == source)]
        assert all(self._may(name, target) for name in carried) or self._suspends("residency", at)
        assert self.active - {source}

    def _moved(self, region: str) -> str:
        while region in self.moves:
            region = self.moves[region]
        return region

    def _may(self, source: str, target: str) -> bool:
        if source == target:
            return True
        residency, allowed = self.regions[source]
        return residency is None or self.regions[target][0] == residency or target in allowed

    def _suspends(self, rule: str, at: object) -> bool:
        return any(rule in rules and until > at for rules, until in self.suspended.values())  # type: ignore[operator]
