"""Where a fleet's traffic goes when a region is lost or taken out: what is due by itself, and what a ruling says.

`observe` folds rulings, `check` says which rules a command keeps, `ruling` makes an event of one that keeps all, and
`decide` gives the commands that are due without anybody asking.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from relight.engine.policies.failover_commands import (
    Abort,
    Back,
    Command,
    Complete,
    Declare,
    Life,
    Restore,
    Rule,
    RuleResult,
    Sight,
    Sights,
    Start,
    Suspend,
)
from relight.engine.policies.failover_rules import check
from relight.engine.policies.routing import (
    RoutingState,
    begun_within,
    in_force,
    kept_in_place,
    may_stand_in,
    moved,
    observe,
    standing,
    under_way,
)
from relight.events.failover import (
    FailoverAborted,
    FailoverCompleted,
    FailoverReturned,
    FailoverStarted,
    FleetDeclared,
    Manner,
    Override,
    OverrideEnded,
    Phase,
    Routing,
    RoutingRuling,
    RulesOverridden,
    StandBy,
    StandIn,
)

__all__ = ["blocked", "check", "choose", "decide", "observe", "ruling", "says_nothing_new"]


def decide(state: RoutingState, now: datetime, sights: Sights) -> list[Command]:
    """What is due by itself and allowed now: one command, or none."""
    if state.routing is None:
        return []
    due = _due(state, state.routing, state.moment(now), sights)
    return [command for command in due if all(result.passes for result in check(state, command, now, sights))][:1]


def blocked(state: RoutingState, now: datetime, sights: Sights) -> RuleResult | None:
    """The rule for which what is due cannot be done; None where nothing is, or something can be."""
    if state.routing is None or decide(state, now, sights):
        return None
    for command in _due(state, state.routing, state.moment(now), sights):
        for result in check(state, command, now, sights):
            if not result.passes:
                return result
    return None


def choose(state: RoutingState, command: Start, targets: Sequence[str], now: datetime, sights: Sights) -> Start:
    """The command with the first of these targets that breaks no rule; with the first of them where all break one."""
    candidates = [replace(command, target=target) for target in targets]
    for candidate in candidates:
        if all(result.passes for result in check(state, candidate, now, sights)):
            return candidate
    return candidates[0] if candidates else command


def says_nothing_new(state: RoutingState, command: Declare) -> bool:
    """Whether the fleet is declared just so."""
    return state.routing is not None and _declared(state.routing, command) == state.routing


def ruling(
    state: RoutingState, command: Command, now: datetime, id: str, results: Sequence[RuleResult]
) -> RoutingRuling:
    """The event that a command which keeps every rule comes to; `id` is to be its own.

    `results` are those of `check`: what was suspended for it stands in the ruling.
    """
    now, before = state.moment(now), state.routing
    if isinstance(command, Declare):
        return FleetDeclared.model_validate(
            _said(state.fleet, _declared(before, command), command.reason, command.ordered_by)
        )
    assert before is not None, "a fleet that is not declared keeps no rule"
    used = [result.override for result in results if result.override is not None]
    override = next((one for one in before.overrides if one.override in used), None)
    match command:
        case Start():
            one, after = _started(before, command, now, id, override)
            said = _said(state.fleet, after, command.reason, command.ordered_by, one, override)
            said |= {"manner": command.manner, "confidence": command.confidence, "policy_name": command.policy_name}
            return FailoverStarted.model_validate(said)
        case Complete():
            one = _going(before)
            one = one.model_copy(update={"phase": Phase.COMPLETED, "since": now})
            said = _said(state.fleet, _with(before, one), command.reason, None, one, override)
            return FailoverCompleted.model_validate(said | {"receipt": command.receipt})
        case Abort():
            one = _going(before)
            said = _said(state.fleet, _without(before, one), command.reason, command.ordered_by, one)
            return FailoverAborted.model_validate(said)
        case Back():
            found = standing(before, command.source)
            assert found is not None, "who is to return has left"
            said = _said(state.fleet, _without(before, found), command.reason, command.ordered_by, found, override)
            return FailoverReturned.model_validate(said | {"receipt": command.receipt})
        case Suspend():
            made = Override(
                override=id,
                rules=command.rules,
                ordered_by=command.ordered_by,
                reason=command.reason,
                expires_at=command.expires_at,
            )
            after = before.model_copy(update={"overrides": (*before.overrides, made)})
            said = _said(state.fleet, after, command.reason, command.ordered_by)
            said |= {"override": id, "rules": command.rules, "expires_at": command.expires_at}
            return RulesOverridden.model_validate(said)
        case Restore():
            ended = next(one for one in before.overrides if one.override == command.override)
            left = tuple(one for one in before.overrides if one is not ended)
            said = _said(state.fleet, before.model_copy(update={"overrides": left}), command.reason, command.ordered_by)
            return OverrideEnded.model_validate(said | {"override": ended.override, "rules": ended.rules})


def _due(state: RoutingState, routing: Routing, now: datetime, sights: Sights) -> Iterator[Command]:
    for override in routing.overrides:
        if override.expires_at <= now:
            yield Restore(override=override.override, reason=f"it ended at {override.expires_at:%H:%M:%S}Z")
    going = under_way(routing)
    if going is not None:
        yield from _next_step(state, routing, going, now, sights)
        return
    holding = {override.override for override in in_force(routing, now)}
    for one in routing.standing:
        if one.override in (None, *holding):
            continue
        if not may_stand_in(routing, one.source_region, moved(routing, one.source_region)):
            yield Back(source=one.source_region, reason="the override that let it go ended", ordered_by="relight")
    for policy in routing.policies:
        sight = sights.get(policy.source_region, Sight())
        if policy.source_region in routing.active and _conditions_met(policy, sight, now):
            start = Start(
                source=policy.source_region,
                target=policy.source_region,
                manner=policy.manner,
                policy_name=policy.policy_name,
                reason=f"{policy.source_region} is isolated, suspected by {sight.suspected_by} regions",
            )
            yield choose(state, start, policy.fallback_regions, now, sights)


def _next_step(
    state: RoutingState, routing: Routing, going: StandIn, now: datetime, sights: Sights
) -> Iterator[Command]:
    source, target = sights.get(going.source_region, Sight()), sights.get(going.target_region, Sight())
    forced = Start(
        source=going.source_region,
        target=going.target_region,
        manner=Manner.FORCED,
        reason="",
        policy_name=going.policy_name,
        ordered_by=None if going.policy_name else "relight",
        failover=going.failover,
    )
    if target.life is Life.ISOLATED:
        policies = [policy for policy in routing.policies if policy.source_region == going.source_region]
        named = [name for policy in policies for name in policy.fallback_regions]
        others = [name for name in named or routing.active if name not in (going.source_region, going.target_region)]
        if others:
            forced = replace(forced, reason=f"{going.target_region} was lost before it stood in")
            yield choose(state, forced, others, now, sights)
    elif going.phase is Phase.DRAINING:
        over = going.since + timedelta(seconds=routing.drain_s)
        if source.drained_for == going.failover:
            yield replace(forced, reason=f"{going.source_region} has drained")
        elif source.life is Life.ISOLATED:
            yield replace(forced, reason=f"{going.source_region} was lost while it drained")
        elif now >= over:
            yield replace(forced, reason=f"{going.source_region} did not drain within {routing.drain_s} s")
    elif target.ready_for == going.failover:
        yield Complete(failover=going.failover, reason=f"{going.target_region} has caught up and has all traffic")
    elif any(Rule.TARGET_READY in override.rules for override in in_force(routing, now)):
        yield Complete(failover=going.failover, reason=f"{going.target_region} has all traffic, caught up or not")


def _conditions_met(policy: StandBy, sight: Sight, now: datetime) -> bool:
    votes, for_s = policy.conditions.get("suspected_by"), policy.conditions.get("for_s")
    if sight.life is not Life.ISOLATED:
        return False
    if isinstance(votes, int) and sight.suspected_by < votes:
        return False
    since = sight.since or now
    return not isinstance(for_s, int | float) or sight.since is None or now >= since + timedelta(seconds=for_s)


def _said(
    fleet: str,
    after: Routing,
    reason: str,
    ordered_by: str | None,
    one: StandIn | None = None,
    override: Override | None = None,
) -> dict[str, object]:
    """What every ruling says."""
    said: dict[str, object] = {
        "fleet": fleet,
        "active_regions": after.active,
        "reason": reason,
        "is_degraded_mode": len(after.active) < len(after.regions),
        "compliance_preserved": kept_in_place(after),
        "ordered_by": ordered_by,
        "routing": after,
    }
    if one is not None:
        said |= {"failover": one.failover, "source_region": one.source_region, "target_region": one.target_region}
        said |= {"policy_name": one.policy_name, "expires_at": override.expires_at if override else None}
    return said


def _going(routing: Routing) -> StandIn:
    found = under_way(routing)
    assert found is not None, "a failover is under way"
    return found


def _started(
    before: Routing, command: Start, now: datetime, id: str, override: Override | None
) -> tuple[StandIn, Routing]:
    phase = Phase.DRAINING if command.manner is Manner.GRACEFUL else Phase.SWITCHING
    changed = {"phase": phase, "since": now, "target_region": command.target}
    if command.failover is not None:
        going = _going(before)
        one = going.model_copy(update=changed | ({"override": override.override} if override else {}))
        return one, _with(before, one)
    one = StandIn(
        failover=id,
        source_region=command.source,
        target_region=command.target,
        phase=phase,
        begun_at=now,
        since=now,
        policy_name=command.policy_name,
        override=override.override if override else None,
    )
    active = tuple(name for name in before.active if name != command.source)
    after = before.model_copy(
        update={
            "active": active,
            "standing": (*before.standing, one),
            "begun": (*begun_within(before, now), now),
        }
    )
    return one, after


def _with(routing: Routing, one: StandIn) -> Routing:
    standing = tuple(one if found.failover == one.failover else found for found in routing.standing)
    return routing.model_copy(update={"standing": standing})


def _without(routing: Routing, one: StandIn) -> Routing:
    """Its source takes traffic again."""
    active = tuple(
        region.name for region in routing.regions if region.name in routing.active or region.name == one.source_region
    )
    left = tuple(found for found in routing.standing if found.failover != one.failover)
    return routing.model_copy(update={"active": active, "standing": left})


def _declared(before: Routing | None, command: Declare) -> Routing:
    """Regions that are new take traffic; of the others those that did."""
    names = [region.name for region in command.regions]
    limits = {
        "regions": command.regions,
        "policies": command.policies,
        "max_failovers": command.max_failovers,
        "window_s": command.window_s,
        "drain_s": command.drain_s,
    }
    if before is None:
        return Routing.model_validate({**limits, "active": tuple(names)})
    known = {region.name for region in before.regions}
    active = tuple(name for name in names if name in before.active or name not in known)
    return Routing.model_validate({**dict(before), **limits, "active": active})
