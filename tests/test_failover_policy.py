"""The rules of a fleet's routing: a command that breaks one is refused with its name."""

from dataclasses import replace

import pytest
from folding import id_at, moment, wire
from routed_subject import FINE, FLEET, completed, declared, seen, start
from routing_history import Judge

from relight.engine.policies.failover import blocked, decide, observe
from relight.engine.policies.failover_commands import (
    Abort,
    Back,
    Command,
    Complete,
    Life,
    Restore,
    Rule,
    Sight,
    Sights,
    Start,
    Suspend,
)
from relight.engine.policies.routing import RoutingState, carried, moved, under_way
from relight.events.catalog import decode
from relight.events.envelope import PLATFORM
from relight.events.failover import (
    FailoverReturned,
    FailoverStarted,
    Manner,
    OverrideEnded,
    Phase,
    StandBy,
)


@pytest.mark.parametrize(
    ("command", "sights", "rule"),
    [
        (start("mars"), FINE, Rule.KNOWN_REGIONS),
        (start(target="mars"), FINE, Rule.KNOWN_REGIONS),
        (start(target="eu"), FINE, Rule.NOT_ONTO_ITSELF),
        (start(ordered_by=None), FINE, Rule.ORDERED),
        (start(reason=" "), FINE, Rule.ORDERED),
        (start(ordered_by=None, policy_name="nothing"), FINE, Rule.ORDERED),
        (start(), seen(us=Sight(life=Life.ISOLATED)), Rule.TARGET_ALIVE),
        (start(), seen(us=Sight(life=Life.SUSPECTED)), Rule.TARGET_ALIVE),
        (start(), {}, Rule.TARGET_ALIVE),
        (start(target="ap"), FINE, Rule.TARGET_ALLOWED),
        (start("us", "ap"), FINE, Rule.RESIDENCY),
        (Complete(failover=id_at(9), reason=""), FINE, Rule.UNDER_WAY),
        (Abort(failover=id_at(9), reason="no", ordered_by="kim"), FINE, Rule.UNDER_WAY),
        (Back(source="eu", reason="well", ordered_by="kim"), FINE, Rule.STANDS),
        (Restore(override=id_at(9), reason="", ordered_by="kim"), FINE, Rule.STANDS),
        (
            Suspend(rules=("never_zero_active",), expires_at=moment(60), ordered_by="kim", reason="why not"),
            FINE,
            Rule.OVERRIDABLE,
        ),
        (
            Suspend(rules=("residency",), expires_at=moment(86_500), ordered_by="kim", reason="for ever"),
            FINE,
            Rule.OVERRIDE_EXPIRES,
        ),
        (Suspend(rules=("residency",), expires_at=moment(60), ordered_by="", reason="x"), FINE, Rule.ORDERED),
        (replace(FLEET, regions=FLEET.regions[1:]), FINE, Rule.KNOWN_REGIONS),
        (
            replace(FLEET, policies=(StandBy(policy_name="p", source_region="eu", fallback_regions=("ap",)),)),
            FINE,
            Rule.RESIDENCY,
        ),
    ],
)
def test_a_command_that_breaks_a_rule_is_refused_with_its_name(command: Command, sights: Sights, rule: Rule) -> None:
    assert declared().ask(command, 1, sights) == rule.value


def test_overlapping_failovers_are_refused_and_the_last_active_region_is_never_switched_off() -> None:
    subject = declared()
    assert subject.ask(start(), 1) == "ruled"
    assert subject.ask(start("ap", "us"), 2) == "one_at_a_time"
    assert subject.ask(start("eu", "us"), 2) == "source_active"
    subject.ask(replace(FLEET, max_failovers=9), 3)
    going = under_way(subject.state.routing)  # type: ignore[arg-type]
    assert going is not None
    assert subject.ask(Complete(failover=going.failover, reason="done"), 3, seen()) == "target_ready"
    ready = seen(us=Sight(life=Life.ALIVE, ready_for=going.failover))
    assert subject.ask(Complete(failover=going.failover, reason="done"), 3, ready) == "ruled"
    completed(subject, "ap", "us", 4)
    completed(subject, "sa", "us", 5)
    assert subject.ask(start("us", "eu"), 6) == "target_active"
    Judge().judge(subject.events)


def test_no_more_failovers_begin_within_a_window_than_may() -> None:
    subject = declared()
    completed(subject, "eu", "us", 0)
    completed(subject, "ap", "us", 30)
    assert subject.ask(start("sa"), 59) == "changes_per_window"
    assert subject.ask(start("sa"), -500) == "changes_per_window"  # a slow clock
    assert subject.ask(start("sa"), 61) == "ruled"
    Judge().judge(subject.events)


def test_data_that_a_region_carries_for_another_stays_where_it_has_to_stay() -> None:
    subject = declared()
    completed(subject, "eu", "us", 0)
    routing = subject.state.routing
    assert routing is not None
    assert (moved(routing, "eu"), carried(routing, "us")) == ("us", ("us", "eu"))
    assert subject.ask(start("us", "sa"), 1) == "residency"  # us itself might, but not the data of eu


def test_an_override_lets_a_rule_be_broken_says_so_expires_and_what_rests_on_it_is_taken_back() -> None:
    subject = declared()
    suspend = Suspend(
        rules=("residency", "target_allowed"), expires_at=moment(30), ordered_by="kim", reason="the only one left"
    )
    assert subject.ask(suspend, 1) == "ruled"
    override = subject.events[-1].id
    completed(subject, "eu", "ap", 2)
    first = subject.events[-2].data
    assert isinstance(first, FailoverStarted)
    assert (first.compliance_preserved, first.expires_at) == (False, moment(30))
    assert decide(subject.state, moment(29), FINE) == []
    [restore] = decide(subject.state, moment(30), FINE)
    assert subject.ask(restore, 30) == "ruled"
    ended = subject.events[-1].data
    assert isinstance(ended, OverrideEnded)
    assert ended.override == override
    assert decide(subject.state, moment(31), seen(eu=Sight(life=Life.ISOLATED))) == []
    [back] = decide(subject.state, moment(31), FINE)
    assert subject.ask(back, 31) == "ruled"
    assert isinstance(subject.events[-1].data, FailoverReturned)
    assert subject.ask(start(target="ap"), 32) == "target_allowed"
    Judge().judge(subject.events)


def test_a_lost_region_is_failed_over_by_its_policy_once_the_conditions_are_met() -> None:
    subject = declared()
    alone = seen(eu=Sight(life=Life.ISOLATED, suspected_by=1, since=moment(0)))
    lost = seen(eu=Sight(life=Life.ISOLATED, suspected_by=2, since=moment(0)))
    assert decide(subject.state, moment(9), alone) == []
    assert decide(subject.state, moment(1), lost) == []
    [begins] = decide(subject.state, moment(2), lost)
    assert isinstance(begins, Start)
    assert (begins.target, begins.manner, begins.policy_name) == ("us", Manner.FORCED, "eu-lost")
    assert subject.ask(begins, 2, lost) == "ruled"
    assert decide(subject.state, moment(3), lost) == []
    going = under_way(subject.state.routing)  # type: ignore[arg-type]
    assert going is not None
    [completes] = decide(subject.state, moment(4), {**lost, "us": Sight(life=Life.ALIVE, ready_for=going.failover)})
    assert subject.ask(completes, 4, {**lost, "us": Sight(life=Life.ALIVE, ready_for=going.failover)}) == "ruled"
    assert decide(subject.state, moment(5), lost) == []


def test_a_region_without_any_fallback_that_is_alive_is_left_where_it_is() -> None:
    lost = seen(
        eu=Sight(life=Life.ISOLATED, suspected_by=2, since=moment(0)), us=Sight(life=Life.SUSPECTED, suspected_by=1)
    )
    assert decide(declared().state, moment(9), lost) == []


@pytest.mark.parametrize("how", ["drained", "late", "lost"])
def test_a_drain_is_forced_when_it_is_done_when_it_takes_too_long_and_when_the_source_is_lost(how: str) -> None:
    subject = declared()
    assert subject.ask(start(manner=Manner.GRACEFUL), 0) == "ruled"
    going = under_way(subject.state.routing)  # type: ignore[arg-type]
    assert going is not None
    assert going.phase is Phase.DRAINING
    assert decide(subject.state, moment(5), FINE) == []
    eu = {
        "drained": Sight(life=Life.ALIVE, drained_for=going.failover),
        "late": Sight(life=Life.ALIVE, drained_for="another"),
        "lost": Sight(life=Life.ISOLATED),
    }[how]
    at = 10 if how == "late" else 5
    [forced] = decide(subject.state, moment(at), seen(eu=eu))
    assert subject.ask(forced, at, seen(eu=eu)) == "ruled"
    after = under_way(subject.state.routing)  # type: ignore[arg-type]
    assert after is not None
    assert (after.failover, after.phase) == (going.failover, Phase.SWITCHING)
    Judge().judge(subject.events)


def test_a_target_that_is_lost_before_it_stood_in_is_replaced_by_the_next() -> None:
    subject = declared()
    assert subject.ask(start("ap", "us"), 0) == "ruled"
    lost = seen(us=Sight(life=Life.ISOLATED))
    [other] = decide(subject.state, moment(1), lost)
    assert isinstance(other, Start)
    assert other.target == "eu"
    assert subject.ask(other, 1, lost) == "ruled"
    assert moved(subject.state.routing, "ap") == "eu"  # type: ignore[arg-type]
    Judge().judge(subject.events)


def test_what_is_due_and_not_allowed_is_said_with_its_rule() -> None:
    subject = declared()
    assert blocked(subject.state, moment(1), FINE) is None
    lost = seen(
        eu=Sight(life=Life.ISOLATED, suspected_by=2, since=moment(0)), us=Sight(life=Life.SUSPECTED, suspected_by=1)
    )
    found = blocked(subject.state, moment(9), lost)
    assert found is not None
    assert (found.rule, found.detail) == (Rule.TARGET_ALIVE, "us is suspected to be lost: name another target")
    assert blocked(subject.state, moment(9), {**lost, "us": FINE["us"]}) is None


def test_an_operator_may_let_a_failover_complete_though_the_target_says_nothing() -> None:
    subject = declared()
    assert subject.ask(start(), 1) == "ruled"
    assert decide(subject.state, moment(2), FINE) == []
    suspend = Suspend(rules=("target_ready",), expires_at=moment(60), ordered_by="kim", reason="it hangs")
    assert subject.ask(suspend, 2) == "ruled"
    [completes] = decide(subject.state, moment(3), FINE)
    assert subject.ask(completes, 3) == "ruled"
    assert under_way(subject.state.routing) is None  # type: ignore[arg-type]


def test_overrides_do_not_pile_up() -> None:
    subject = declared()
    suspend = Suspend(rules=("residency",), expires_at=moment(60), ordered_by="kim", reason="again")
    assert [subject.ask(suspend, 1) for _ in range(21)] == ["ruled"] * 20 + ["overridable"]


def test_rulings_of_the_release_before_say_who_takes_traffic_though_they_carry_no_table() -> None:
    facts = {"fleet": "agents", "reason": "eu is lost", "is_degraded_mode": True, "compliance_preserved": True}
    facts |= {"source_region": "eu", "target_region": "us", "active_regions": ("us", "ap")}
    state = RoutingState(fleet="agents")
    started = FailoverStarted.model_validate({**facts, "manner": "graceful"})
    _, body, _ = wire(started, id=id_at(1), time=moment(1), tenant=PLATFORM, rev=1)
    state = observe(state, decode(body))
    assert state.routing is not None
    assert (moved(state.routing, "eu"), state.routing.active) == ("us", ("us", "ap"))
    assert state.routing.standing[0].phase is Phase.DRAINING
    returned = FailoverReturned.model_validate({**facts, "active_regions": ("eu", "us", "ap")})
    _, body, _ = wire(returned, id=id_at(2), time=moment(2), tenant=PLATFORM, rev=2)
    state = observe(state, decode(body))
    assert state.routing is not None
    assert (moved(state.routing, "eu"), state.routing.standing) == ("eu", ())
