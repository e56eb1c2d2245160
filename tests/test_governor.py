"""The safety governor: a fleet's mode is what the highest revision says."""

import pytest
from folding import fact, given, moment
from pydantic import ValidationError

from relight.events.governor import (
    DisasterModeActivated,
    DisasterModeDeactivated,
    DisasterModeDeescalated,
    DisasterModeEscalated,
)
from relight.projections.governor import EVENTS, STATES

ACTIVATED = DisasterModeActivated(
    fleet="f", reason="errors", signals={"error_rate": 0.4}, mode_level="degraded", disabled_features=("batch",)
)
ESCALATED = DisasterModeEscalated(
    fleet="f",
    reason="more errors",
    mode_level="emergency",
    from_level="degraded",
    disabled_features=("batch", "tools"),
    activated_at=moment(1),
)
DEESCALATED = DisasterModeDeescalated(
    fleet="f",
    reason="fewer errors",
    mode_level="minimal",
    from_level="emergency",
    disabled_features=("batch",),
    activated_at=moment(1),
)
DEACTIVATED = DisasterModeDeactivated(
    fleet="f", reason="well", ordered_by="kim", from_level="minimal", activated_at=moment(1)
)


def test_a_mode_rises_falls_and_ends() -> None:
    facts = (ACTIVATED, ESCALATED, DEESCALATED, DEACTIVATED)
    features: list[tuple[str, ...]] = [("batch",), ("batch", "tools"), ("batch",), ()]
    for count, level in enumerate(("degraded", "emergency", "minimal", "normal"), 1):
        [row] = given(*facts[:count]).when(times=2).then(STATES)
        assert (row["mode_level"], row["activated_at"], row["level_at"]) == (level, moment(1), moment(count))
        assert row["disabled_features"] == features[count - 1]
        assert row["deactivated_at"] == (moment(4) if level == "normal" else None)


def test_an_escalation_of_a_lower_revision_that_arrives_after_the_end_changes_nothing() -> None:
    [row] = given(fact(DEACTIVATED, rev=4, tick=1), fact(ESCALATED, rev=2, tick=9)).when(times=2).then(STATES)
    assert (row["mode_level"], row["mode_rev"]) == ("normal", 4)


def test_every_change_is_in_the_history_with_its_signals() -> None:
    rows = given(ACTIVATED, ESCALATED, DEESCALATED, DEACTIVATED).when(times=2).then(EVENTS)
    assert [(row["event_type"], row["from_level"], row["mode_level"]) for row in rows] == [
        ("activated", "normal", "degraded"),
        ("escalated", "degraded", "emergency"),
        ("deescalated", "emergency", "minimal"),
        ("deactivated", "minimal", "normal"),
    ]
    assert rows[0]["details"] == {"signals": {"error_rate": 0.4}, "disabled_features": ["batch"]}
    assert rows[3]["ordered_by"] == "kim"


def test_a_disaster_mode_cannot_be_activated_at_normal() -> None:
    with pytest.raises(ValidationError):
        ACTIVATED.model_copy(update={"mode_level": "normal"})
