"""Decisions: an outcome outranks `pending`, whoever's clock ran ahead."""

from folding import fact, given, id_at, moment

from relight.events.decisions import (
    DecisionBegun,
    DecisionCheckpointed,
    DecisionOutcomeKnown,
    DecisionTaken,
    Outcome,
)
from relight.events.values import Content
from relight.projections.decisions import AUDIT, DECISIONS

BEGUN = DecisionBegun(decision="d", decision_type="refund", context={"order": 991})
TAKEN = DecisionTaken(
    decision="d",
    decision_type="refund",
    agent="a-1",
    context={"order": 991, "limit": 100},
    decision_taken="approve",
    confidence=0.8,
    request=Content(sha256="a" * 64, size_bytes=3),
)
KNOWN = DecisionOutcomeKnown(decision="d", outcome=Outcome.SUCCESS, input_tokens=10, cost_microusd=300)


def test_a_decision_is_pending_until_its_outcome_is_known() -> None:
    [pending] = given(BEGUN, TAKEN).when(times=2).then(DECISIONS)
    assert (pending["outcome"], pending["result_rev"], pending["decision_taken"]) == ("pending", 0, "approve")
    [known] = given(BEGUN, TAKEN, KNOWN).when(times=2).then(DECISIONS)
    assert (known["outcome"], known["input_tokens"], known["cost_microusd"]) == ("success", 10, 300)


def test_an_outcome_with_a_lower_id_than_the_decision_is_kept() -> None:
    [row] = given(fact(KNOWN, tick=1), fact(TAKEN, tick=2)).when(times=2).then(DECISIONS)
    assert (row["outcome"], row["result_rev"], row["result_event_id"]) == ("success", 1, id_at(1))
    assert (row["decision_taken"], row["choice_event_id"]) == ("approve", id_at(2))


def test_what_was_known_when_deciding_outranks_what_was_known_at_the_beginning() -> None:
    [row] = given(fact(TAKEN, tick=1), fact(BEGUN, tick=2)).when(times=2).then(DECISIONS)
    assert (row["context"], row["agent"], row["opened_at"]) == ({"order": 991, "limit": 100}, "a-1", moment(1))


def test_every_step_is_in_the_audit() -> None:
    step = DecisionCheckpointed(
        decision="d", checkpoint_type="policy_checked", content=Content(sha256="b" * 64, size_bytes=9)
    )
    rows = given(BEGUN, step, TAKEN, KNOWN).when(times=2).then(AUDIT)
    assert [row["checkpoint_type"] for row in rows] == ["begun", "policy_checked", "taken", "outcome_known"]
    assert [row["content_bytes"] for row in rows] == [None, 9, 3, None]
