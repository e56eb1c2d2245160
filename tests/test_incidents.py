"""Incidents: a status only moves forward, and whatever was done is in the timeline."""

from folding import fact, given, id_at, moment

from relight.events.incidents import (
    IncidentActionTaken,
    IncidentMitigationStarted,
    IncidentOpened,
    IncidentPostmortemPublished,
    IncidentReassessed,
    IncidentResolved,
    Severity,
)
from relight.projections.incidents import INCIDENTS, LOGS

OPENED = IncidentOpened(
    incident="i",
    executed_by="kim",
    incident_name="eu is down",
    severity=Severity.MEDIUM,
    affected_domains=("region:eu",),
    description="no heartbeats",
)
REASSESSED = IncidentReassessed(
    incident="i",
    executed_by="lee",
    severity=Severity.CRITICAL,
    affected_domains=("region:eu", "provider:x"),
    description="all is down",
    reason="x fails too",
)
MITIGATION = IncidentMitigationStarted(incident="i", executed_by="lee", remediation_steps=("isolate", "fail over"))
ACTION = IncidentActionTaken(
    incident="i", executed_by="lee", action_taken="isolated eu", assumptions=("us has room",), result="errors fell"
)
RESOLVED = IncidentResolved(incident="i", executed_by="kim", resolution="eu is back")
POSTMORTEM = IncidentPostmortemPublished(incident="i", executed_by="kim", summary="a certificate expired")


def test_an_incident_goes_from_active_to_its_postmortem() -> None:
    facts = (OPENED, MITIGATION, RESOLVED, POSTMORTEM)
    for count, status in enumerate(("active", "mitigating", "resolved", "postmortem"), 1):
        [row] = given(*facts[:count]).when(times=2).then(INCIDENTS)
        assert (row["status"], row["status_at"], row["progress_rev"]) == (status, moment(count), count - 1)
    assert (row["remediation_steps"], row["resolution"]) == (("isolate", "fail over"), "eu is back")
    assert (row["resolved_at"], row["postmortem_summary"]) == (moment(3), "a certificate expired")


def test_a_mitigation_with_a_later_clock_does_not_undo_the_resolution() -> None:
    [row] = given(fact(RESOLVED, tick=1), fact(MITIGATION, tick=9), fact(OPENED, tick=5)).when(times=2).then(INCIDENTS)
    assert (row["status"], row["progress_event_id"]) == ("resolved", id_at(1))


def test_a_reassessment_outranks_the_first_look() -> None:
    [row] = given(fact(REASSESSED, tick=1), fact(OPENED, tick=2)).when(times=2).then(INCIDENTS)
    assert (row["severity"], row["affected_domains"]) == ("critical", ("region:eu", "provider:x"))
    assert (row["incident_name"], row["opened_by"], row["status"]) == ("eu is down", "kim", "active")


def test_what_breaks_again_is_a_new_incident_that_names_the_old_one() -> None:
    again = OPENED.model_copy(update={"incident": "j", "reopens": "i"})
    rows = given(OPENED, RESOLVED, again).when(times=2).then(INCIDENTS)
    assert [(r["incident"], r["status"], r["reopens"]) for r in rows] == [("i", "resolved", None), ("j", "active", "i")]


def test_the_timeline_tells_openings_changes_of_status_and_actions_alike() -> None:
    rows = given(OPENED, REASSESSED, MITIGATION, ACTION, RESOLVED, POSTMORTEM).when(times=2).then(LOGS)
    assert [(row["action_taken"], row["executed_by"]) for row in rows] == [
        ("opened", "kim"),
        ("reassessed", "lee"),
        ("mitigation_started", "lee"),
        ("isolated eu", "lee"),
        ("resolved", "kim"),
        ("postmortem_published", "kim"),
    ]
    assert (rows[3]["assumptions"], rows[3]["result"]) == (("us has room",), "errors fell")
    assert rows[1]["details"] == {
        "severity": "critical",
        "affected_domains": ["region:eu", "provider:x"],
        "reason": "x fails too",
    }
