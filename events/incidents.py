"""Incidents: what operators see go wrong, and what they do about it.

All are observations, so that an incident can be recorded while the log is away. An incident only moves forward
(active, mitigating, resolved, postmortem): what breaks again is a new incident that names the old one in `reopens`.
"""

from enum import StrEnum

from relight.events.base import Event
from relight.events.values import Content, Key, Keys, Text, Texts


class Severity(StrEnum):
    """How bad it is."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class IncidentEvent(Event, entity="incident"):
    """What every event of an incident carries; `executed_by` is the operator, or the policy that acted as one."""

    incident: Key
    executed_by: Key


class IncidentOpened(IncidentEvent, type="incidents.opened"):
    """Something is wrong enough to need a person."""

    incident_name: Key
    severity: Severity
    affected_domains: Keys
    description: Text
    reopens: Key | None = None


class IncidentReassessed(IncidentEvent, type="incidents.reassessed"):
    """It is worse, milder, wider or narrower than was thought; replaces all of the assessment."""

    severity: Severity
    affected_domains: Keys
    description: Text
    reason: Text


class IncidentMitigationStarted(IncidentEvent, type="incidents.mitigation_started"):
    """Somebody works on it by these steps; a changed plan is another such event."""

    remediation_steps: Texts


class IncidentActionTaken(IncidentEvent, type="incidents.action_taken"):
    """One thing was done, on these assumptions; `result` is null until it is known, then the action is logged again."""

    action_taken: Text
    assumptions: Texts = ()
    result: Text | None = None


class IncidentResolved(IncidentEvent, type="incidents.resolved"):
    """Whoever was affected is well again."""

    resolution: Text


class IncidentPostmortemPublished(IncidentEvent, type="incidents.postmortem_published"):
    """What was learned is written down."""

    summary: Text
    document: Content | None = None
