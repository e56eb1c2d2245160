"""Failover: the last declaration of a policy holds, and every ruling on a fleet's routing is kept."""

import pytest
from folding import fact, given, id_at, moment
from pydantic import ValidationError

from relight.events.base import Event
from relight.events.failover import (
    FailoverAborted,
    FailoverCompleted,
    FailoverPolicyDeclared,
    FailoverReturned,
    FailoverStarted,
    FleetDeclared,
    FleetRegion,
    OverrideEnded,
    Routing,
    RulesOverridden,
)
from relight.events.values import Content
from relight.projections.failover import EVENTS, POLICIES

DECLARED = FailoverPolicyDeclared(
    policy_name="eu-first",
    source_region="eu",
    fallback_regions=("us", "ap"),
    conditions={"residency": "any"},
    is_active=True,
    declared_by="kim",
)
ROUTING = {
    "fleet": "refunds",
    "policy_name": "eu-first",
    "source_region": "eu",
    "target_region": "us",
    "active_regions": ("us", "ap"),
    "reason": "eu is lost",
    "is_degraded_mode": True,
    "compliance_preserved": True,
    "confidence": 0.9,
}
RECEIPT = Content(sha256="a" * 64, size_bytes=3)


def test_a_policy_keeps_its_fallbacks_in_order_of_preference() -> None:
    [row] = given(DECLARED).when(times=2).then(POLICIES)
    assert (row["fallback_regions"], row["conditions"]) == (("us", "ap"), {"residency": "any"})
    assert (row["is_active"], row["declared_by"], row["declared_at"]) == (True, "kim", moment(1))


def test_a_declaration_that_arrives_late_does_not_replace_a_later_one() -> None:
    withdrawn = DECLARED.model_copy(update={"is_active": False})
    [row] = given(fact(withdrawn, tick=5), fact(DECLARED, tick=1)).when(times=2).then(POLICIES)
    assert (row["is_active"], row["declaration_event_id"]) == (False, id_at(5))


def test_a_failover_drains_is_forced_completes_and_returns() -> None:
    facts: list[Event] = [
        FailoverStarted.model_validate({**ROUTING, "manner": "graceful"}),
        FailoverStarted.model_validate({**ROUTING, "manner": "forced"}),
        FailoverCompleted.model_validate({**ROUTING, "receipt": RECEIPT}),
        FailoverReturned.model_validate({**ROUTING, "active_regions": ("eu", "us", "ap")}),
        FailoverAborted.model_validate({**ROUTING, "policy_name": None, "ordered_by": "kim", "expires_at": moment(60)}),
    ]
    rows = given(*facts).when(times=2).then(EVENTS)
    assert [row["phase"] for row in rows] == ["draining", "switching", "completed", "returned", "aborted"]
    assert [row["receipt"] for row in rows] == [None, None, RECEIPT.model_dump(), None, None]
    assert rows[3]["active_regions"] == ("eu", "us", "ap")
    assert (rows[4]["policy"], rows[4]["ordered_by"], rows[4]["expires_at"]) == (None, "kim", moment(60))


ROUTING_TABLE = Routing(regions=(FleetRegion(name="eu"), FleetRegion(name="us")), active=("eu", "us"))
FLEET = {"fleet": "refunds", "active_regions": ("eu", "us"), "reason": "so it is", "routing": ROUTING_TABLE}
FLEET |= {"is_degraded_mode": False, "compliance_preserved": True, "ordered_by": "kim"}


def test_what_a_fleet_is_and_what_is_suspended_stand_among_its_rulings() -> None:
    override = {"override": id_at(2), "rules": ("residency",), "expires_at": moment(60)}
    facts: list[Event] = [
        FleetDeclared.model_validate(FLEET),
        RulesOverridden.model_validate({**FLEET, **override}),
        OverrideEnded.model_validate({**FLEET, **override}),
    ]
    rows = given(*facts).when(times=2).then(EVENTS)
    assert [(row["phase"], row["failover"]) for row in rows] == [
        ("declared", None),
        ("overridden", id_at(2)),
        ("override_ended", id_at(2)),
    ]
    assert {(row["source_region"], row["target_region"]) for row in rows} == {("-", "-")}
    assert rows[0]["routing"]["active"] == ["eu", "us"]


def test_all_rulings_of_a_fleet_stand_on_one_subject_whatever_the_regions() -> None:
    one = FailoverStarted.model_validate({**ROUTING, "manner": "forced"})
    other = one.model_copy(update={"source_region": "us", "target_region": "eu"})
    assert {event.nats_subject for event in given(one, other).events} == {"ctl.failover.acme.refunds"}


def test_a_ruling_has_to_say_whether_compliance_is_preserved() -> None:
    with pytest.raises(ValidationError):
        FailoverAborted.model_validate({k: v for k, v in ROUTING.items() if k != "compliance_preserved"})
