"""Fault domains: rulings win by revision, and nothing known of an isolation is lost on the way back."""

from folding import fact, given, id_at, moment

from relight.events.faults import (
    DomainType,
    FaultDetected,
    FaultIsolated,
    FaultRecovered,
    FaultRecovering,
    FaultSuspected,
    FaultTrusted,
)
from relight.projections.faults import DOMAINS, EVENTS

EU = {"domain_type": DomainType.REGION, "domain_identifier": "eu", "cause": "errors", "scope": "all agents in eu"}
DETECTED = FaultDetected.model_validate({**EU, "cascading_risk": 0.4, "confidence": 0.9})
ISOLATED = FaultIsolated.model_validate({**EU, "detected_at": moment(1)})
KNOWN = {"detected_at": moment(1), "isolated_at": moment(2), "isolation_reason": "errors"}
RECOVERING = FaultRecovering.model_validate({**EU, "cause": "heartbeats", **KNOWN})
RECOVERED = FaultRecovered.model_validate({**EU, "cause": "probes passed", **KNOWN})


def test_a_domain_goes_from_degraded_over_isolated_and_recovering_to_healthy() -> None:
    rulings = (DETECTED, ISOLATED, RECOVERING, RECOVERED)
    for count, status in enumerate(("degraded", "isolated", "recovering", "healthy"), 1):
        [row] = given(*rulings[:count]).when(times=2).then(DOMAINS)
        assert (row["status"], row["status_at"], row["ruling_rev"]) == (status, moment(count), count)
        assert row["isolated_at"] == (moment(2) if count >= 2 else None)
        assert row["detected_at"] == moment(1)
        assert row["recovered_at"] == (moment(4) if count == 4 else None)
    assert (row["isolation_reason"], row["cause"]) == ("errors", "probes passed")


def test_an_isolation_of_a_lower_revision_that_arrives_after_the_recovery_changes_nothing() -> None:
    [row] = given(fact(RECOVERED, rev=4, tick=1), fact(ISOLATED, rev=2, tick=9)).when(times=2).then(DOMAINS)
    assert (row["status"], row["ruling_event_id"]) == ("healthy", id_at(1))


def test_domains_of_different_types_with_one_name_are_apart() -> None:
    provider = DETECTED.model_copy(update={"domain_type": "provider"})
    rows = given(provider, ISOLATED).when(times=2).then(DOMAINS)
    assert [(row["domain_type"], row["status"]) for row in rows] == [("provider", "degraded"), ("region", "isolated")]


def test_every_ruling_is_in_the_history_with_its_risk_and_confidence() -> None:
    rows = given(DETECTED, ISOLATED).when(times=2).then(EVENTS)
    assert [(row["event_type"], row["cascading_risk"], row["confidence"]) for row in rows] == [
        ("detected", 0.4, 0.9),
        ("isolated", None, None),
    ]


def test_votes_and_what_a_ruling_rests_on_are_in_the_history_and_change_no_domain() -> None:
    heard = {"domain_type": "region", "domain_identifier": "eu", "observer": "us-1", "observer_region": "us"}
    suspected = FaultSuspected.model_validate({**heard, "phi": 12.25, "silent_ms": 3_250, "since": moment(1)})
    trusted = FaultTrusted.model_validate({**heard, "phi": 0, "silent_ms": 100, "since": moment(2)})
    evidence = {"voters": ("us-1", "ap-1"), "voter_regions": ("us", "ap"), "phi": 9.5}
    folded = given(suspected, DETECTED.model_copy(update=evidence), trusted).when(times=2)
    seen = ("event_type", "observer", "observer_region", "phi", "silent_ms", "voters", "voter_regions")
    assert [tuple(row[name] for name in seen) for row in folded.then(EVENTS)] == [
        ("suspected", "us-1", "us", 12.25, 3_250, None, None),
        ("detected", None, None, 9.5, None, ("us-1", "ap-1"), ("us", "ap")),
        ("trusted", "us-1", "us", 0.0, 100, None, None),
    ]
    assert [row["status"] for row in folded.then(DOMAINS)] == ["degraded"]


def test_a_ruling_that_no_votes_were_asked_for_is_written_as_it_always_was() -> None:
    assert DETECTED.written_version == 1
    assert DETECTED.model_copy(update={"voters": ()}).written_version == 2
