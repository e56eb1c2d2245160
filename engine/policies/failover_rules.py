"""Which failovers are allowed: every safety rule by name, checked against the state that the ruling is to follow."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from relight.engine.policies.failover_commands import (
    MAX_OVERRIDE,
    MAX_OVERRIDES,
    OVERRIDABLE,
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
from relight.engine.policies.routing import (
    RoutingState,
    begun_within,
    carried,
    in_force,
    may_stand_in,
    moved,
    region_of,
    standing,
    under_way,
)
from relight.events.failover import Manner, Phase, Routing, StandIn


def check(state: RoutingState, command: Command, now: datetime, sights: Sights) -> tuple[RuleResult, ...]:
    """Every rule that this command has to keep, in the order in which they are to be told."""
    now, routing = state.moment(now), state.routing
    if isinstance(command, Declare):
        return tuple(_declare(routing, command))
    if routing is None:
        said = f"fleet {state.fleet} is not declared: run `relight topology apply`"
        return (_result(Rule.DECLARED, False, "", said),)
    match command:
        case Start():
            results = _start(routing, command, now, sights)
        case Complete():
            results = _complete(routing, command, sights)
        case Abort():
            results = _abort(routing, command, sights)
        case Back():
            results = _back(routing, command, sights)
        case Suspend():
            results = _suspend(routing, command, now)
        case Restore():
            results = _restore(routing, command, now)
    return tuple(_overridden(result, routing, now) for result in results)


def _overridden(result: RuleResult, routing: Routing, now: datetime) -> RuleResult:
    if result.held or result.rule not in OVERRIDABLE:
        return result
    for override in in_force(routing, now):
        if result.rule in override.rules:
            said = f"{result.detail} (suspended by {override.ordered_by} until {override.expires_at:%H:%M:%S}Z)"
            return RuleResult(rule=result.rule, held=False, detail=said, override=override.override)
    return result


def _result(rule: Rule, held: bool, yes: str, no: str) -> RuleResult:
    return RuleResult(rule=rule, held=held, detail=yes if held else no)


def _start(routing: Routing, command: Start, now: datetime, sights: Sights) -> Iterator[RuleResult]:
    source, target = command.source, command.target
    yield _known(routing, (source, target))
    yield _result(
        Rule.NOT_ONTO_ITSELF,
        source != target,
        f"{source} and {target} are two regions",
        f"{source} cannot stand in for itself: name another target",
    )
    yield _ordered(command.policy_name, command.ordered_by, command.reason, routing)
    yield _alive(Rule.TARGET_ALIVE, target, sights, "name another target")
    going = under_way(routing)
    if command.failover is None:
        yield _result(
            Rule.SOURCE_ACTIVE,
            source in routing.active,
            f"{source} takes traffic",
            f"{source} takes no traffic now, {moved(routing, source)} does: there is nothing to move",
        )
        yield _one_at_a_time(going)
        begun = begun_within(routing, now)
        frees = f"{(begun[0] + timedelta(seconds=routing.window_s)):%H:%M:%S}Z" if begun else ""
        yield _result(
            Rule.CHANGES_PER_WINDOW,
            len(begun) < routing.max_failovers,
            f"{len(begun)} of {routing.max_failovers} failovers began within {routing.window_s} s",
            f"{len(begun)} failovers began within {routing.window_s} s, and {routing.max_failovers} may: wait until"
            f" {frees}, or override it",
        )
    else:
        yield _is_under_way(going, command.failover)
        forced = f"{command.failover} is under way already: what goes on with it is forced"
        yield _result(Rule.UNDER_WAY, command.manner is Manner.FORCED, "it is forced", forced)
        same = going is None or going.source_region == source
        yield _result(Rule.SOURCE_ACTIVE, same, f"{source} is what it moves", f"it does not move {source}")
    yield _result(
        Rule.TARGET_ACTIVE,
        target in routing.active,
        f"{target} takes traffic",
        f"{target} takes no traffic itself: name one of {_names(routing.active)}",
    )
    yield _allowed(routing, command)
    after = tuple(name for name in routing.active if name != source)
    yield _result(
        Rule.NEVER_ZERO_ACTIVE,
        bool(after),
        f"{_names(after)} go on taking traffic",
        f"without {source} no region would take traffic: bring another one back first",
    )
    yield _residency(routing, source, target)


def _complete(routing: Routing, command: Complete, sights: Sights) -> Iterator[RuleResult]:
    going = under_way(routing)
    yield _is_under_way(going, command.failover)
    if going is None or going.failover != command.failover:
        return
    target = going.target_region
    yield _result(
        Rule.STANDS,
        going.phase is Phase.SWITCHING,
        f"{going.source_region} is off",
        f"{going.source_region} still drains: wait, or force it",
    )
    yield _alive(Rule.TARGET_ALIVE, target, sights, "another one has to stand in")
    yield _result(
        Rule.TARGET_READY,
        sights.get(target, Sight()).ready_for == going.failover,
        f"{target} says that it has caught up",
        f"{target} has not said that it has caught up: wait, or override it",
    )


def _abort(routing: Routing, command: Abort, sights: Sights) -> Iterator[RuleResult]:
    going = under_way(routing)
    yield _is_under_way(going, command.failover)
    if going is not None and going.failover == command.failover:
        yield _alive(Rule.SOURCE_ALIVE, going.source_region, sights, "let the failover complete")


def _back(routing: Routing, command: Back, sights: Sights) -> Iterator[RuleResult]:
    source = command.source
    yield _known(routing, (source,))
    yield _ordered(None, command.ordered_by, command.reason, routing)
    found = standing(routing, source)
    yield _result(
        Rule.STANDS,
        found is not None,
        f"{moved(routing, source)} stands in for {source}",
        f"nobody stands in for {source}: there is nothing to return",
    )
    yield _one_at_a_time(under_way(routing))
    yield _alive(Rule.SOURCE_ALIVE, source, sights, "start it and wait for its heartbeats")
    yield _result(
        Rule.CAUGHT_UP,
        sights.get(source, Sight()).caught_up,
        f"{source} has all of the log and of its spools",
        f"{source} has not caught up yet: wait, or override it",
    )


def _suspend(routing: Routing, command: Suspend, now: datetime) -> Iterator[RuleResult]:
    fixed = [rule for rule in command.rules if rule not in OVERRIDABLE]
    yield _result(
        Rule.OVERRIDABLE,
        bool(command.rules) and not fixed,
        f"{_names(command.rules)} may be suspended",
        f"{_names(fixed) or 'no rule'} cannot be suspended: name some of {_names(sorted(OVERRIDABLE))}",
    )
    full = f"{MAX_OVERRIDES} overrides stand already: end one of them"
    yield _result(Rule.OVERRIDABLE, len(routing.overrides) < MAX_OVERRIDES, "few others are", full)
    yield _ordered(None, command.ordered_by, command.reason, None)
    yield _result(
        Rule.OVERRIDE_EXPIRES,
        now < command.expires_at <= now + MAX_OVERRIDE,
        f"it ends at {command.expires_at:%Y-%m-%d %H:%M:%S}Z",
        f"it would end at {command.expires_at:%Y-%m-%d %H:%M:%S}Z: say a time within a day from now",
    )


def _restore(routing: Routing, command: Restore, now: datetime) -> Iterator[RuleResult]:
    found = next((one for one in routing.overrides if one.override == command.override), None)
    yield _result(
        Rule.STANDS,
        found is not None,
        f"override {command.override} stands",
        f"no override {command.override} stands: see `relight failover status`",
    )
    if found is not None:
        due = command.ordered_by is not None or found.expires_at <= now
        yield _result(Rule.OVERRIDE_EXPIRES, due, "it is to end", f"it ends at {found.expires_at:%H:%M:%S}Z")


def _declare(before: Routing | None, command: Declare) -> Iterator[RuleResult]:
    names = [region.name for region in command.regions]
    used = [name for policy in command.policies for name in (policy.source_region, *policy.fallback_regions)]
    used += [name for region in command.regions for name in region.allowed]
    unknown = sorted(set(used) - set(names))
    yield _result(
        Rule.KNOWN_REGIONS,
        bool(names) and len(set(names)) == len(names) and not unknown,
        f"the regions are {_names(names)}",
        f"{_names(unknown) or 'twice, or no region at all,'} stands in it, and its regions are {_names(names)}: correct"
        " it",
    )
    itself = [policy.policy_name for policy in command.policies if policy.source_region in policy.fallback_regions]
    yield _result(
        Rule.NOT_ONTO_ITSELF,
        not itself,
        "no region stands in for itself",
        f"a region would stand in for itself by policy {_names(itself)}: take it from the fallbacks",
    )
    stays = before.standing if before is not None else ()
    gone = sorted({name for one in stays for name in (one.source_region, one.target_region)} - set(names))
    yield _result(
        Rule.STANDS,
        not gone,
        "who stands in for another is still there",
        f"{_names(gone)} takes part in a failover that stands: return it before you take the region away",
    )
    wanted = Routing(regions=command.regions, active=tuple(names), standing=stays)
    pairs = [(policy.source_region, target) for policy in command.policies for target in policy.fallback_regions]
    pairs += [(one.source_region, one.target_region) for one in stays if one.override is None]
    breaking = [f"{one} to {other}" for one, other in pairs if one != other and not may_stand_in(wanted, one, other)]
    yield _result(
        Rule.RESIDENCY,
        not breaking,
        "data stays where it has to stay",
        f"data has to stay, and would go from {_names(breaking)}: take that fallback away, or allow it in the region",
    )


def _known(routing: Routing, names: tuple[str, ...]) -> RuleResult:
    unknown = [name for name in names if region_of(routing, name) is None]
    known = _names(tuple(region.name for region in routing.regions))
    return _result(
        Rule.KNOWN_REGIONS,
        not unknown,
        f"{_names(names)} of {known}",
        f"{_names(unknown)} is not one of {known}: correct the name",
    )


def _ordered(policy: str | None, operator: str | None, reason: str, routing: Routing | None) -> RuleResult:
    known = routing is not None and any(one.policy_name == policy for one in routing.policies)
    who = f"policy {policy}" if policy is not None else operator
    held = bool(reason.strip()) and (known if policy is not None else bool(operator and operator.strip()))
    what = f"no policy {policy} is in force" if policy is not None and not known else "it has no name or no reason"
    return _result(Rule.ORDERED, held, f"{who} says so: {reason}", f"{what}: say who orders it, and why")


def _one_at_a_time(going: StandIn | None) -> RuleResult:
    said = ""
    if going is not None:
        said = (
            f"failover {going.failover} from {going.source_region} to {going.target_region} is under way"
            f" ({going.phase.value}): wait until it is completed, or abort it"
        )
    return _result(Rule.ONE_AT_A_TIME, going is None, "no other failover is under way", said)


def _is_under_way(going: StandIn | None, failover: str) -> RuleResult:
    held = going is not None and going.failover == failover
    what = "none is" if going is None else f"{going.failover} is"
    return _result(Rule.UNDER_WAY, held, f"{failover} is under way", f"{failover} is not under way, {what}")


def _alive(rule: Rule, region: str, sights: Sights, instead: str) -> RuleResult:
    life = sights.get(region, Sight()).life
    words = {Life.SUSPECTED: "is suspected to be lost", Life.ISOLATED: "is isolated"}
    return _result(
        rule,
        life is Life.ALIVE,
        f"{region} is alive",
        f"{region} {words.get(life, 'was not heard of')}: {instead}",
    )


def _allowed(routing: Routing, command: Start) -> RuleResult:
    policies = [policy for policy in routing.policies if policy.source_region == command.source]
    if command.policy_name is not None:
        policies = [policy for policy in policies if policy.policy_name == command.policy_name]
    elif not policies:
        return _result(Rule.TARGET_ALLOWED, True, f"no policy says who stands in for {command.source}", "")
    allowed = tuple(dict.fromkeys(name for policy in policies for name in policy.fallback_regions))
    return _result(
        Rule.TARGET_ALLOWED,
        command.target in allowed,
        f"a policy lets {command.target} stand in for {command.source}",
        f"policies let {_names(allowed) or 'nobody'} stand in for {command.source}, not {command.target}: name one of"
        " them, or override it",
    )


def _residency(routing: Routing, source: str, target: str) -> RuleResult:
    """Of all that the source carries: it may stand in for others itself."""
    for name in carried(routing, source):
        region, there = region_of(routing, name), region_of(routing, target)
        if region is None or there is None or may_stand_in(routing, name, target):
            continue
        said = (
            f"data of {name} has to stay in {region.residency}, and {target} is {there.residency or 'of no residency'}:"
            " name another target, or override it"
        )
        return _result(Rule.RESIDENCY, False, "", said)
    return _result(Rule.RESIDENCY, True, f"the data of {source} may be in {target}", "")


def _names(names: Sequence[str]) -> str:
    return ", ".join(names)
