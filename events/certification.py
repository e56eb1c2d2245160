"""Certification: which components were tested in the field, with what result, and what that entitles them to.

A certification is granted once and may be revoked once; a component is certified anew under a new one.
"""

from enum import StrEnum

from relight.events.base import Event
from relight.events.values import Count, Fraction, JsonObject, Key, Text, Time


class CertificationLevel(StrEnum):
    """What a component may be relied on for, in rising order."""

    BASIC = "basic"
    STANDARD = "standard"
    ADVANCED = "advanced"
    ENTERPRISE = "enterprise"


class CertificationEvent(Event, entity="certification"):
    """What every event of a certification carries."""

    certification: Key
    component_name: Key


class CertificationTested(CertificationEvent, type="certification.tested"):
    """One test of the component ran to its end."""

    test_name: Key
    test_category: Key
    passed: bool
    details: JsonObject = {}
    executed_at: Time


class CertificationGranted(CertificationEvent, type="certification.granted"):
    """The component reached this level; null `expires_at`: for good."""

    certification_level: CertificationLevel
    tests_passed: Count
    tests_failed: Count
    overall_score: Fraction
    granted_by: Key | None = None
    expires_at: Time | None = None


class CertificationRevoked(CertificationEvent, type="certification.revoked"):
    """The component may no longer be relied on."""

    reason: Text
    revoked_by: Key | None = None
