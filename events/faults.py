"""Fault domains: tenants, regions, engines and providers that fail, are cut off from the rest, and come back."""

from enum import StrEnum
from typing import Any

from relight.events.base import Control, Event
from relight.events.values import Count, Fraction, Key, Keys, Name, Phi, Text, Time


class DomainType(StrEnum):
    """What kind of thing fails as one."""

    TENANT = "tenant"
    REGION = "region"
    ENGINE = "engine"
    PROVIDER = "provider"


class FaultEvent(Event, entity="domain"):
    """Tells of one fault domain."""

    domain_type: DomainType
    domain_identifier: Key

    @property
    def domain(self) -> str:
        """`region:eu`; no two domains have the same, as no type holds a colon."""
        return f"{self.domain_type.value}:{self.domain_identifier}"


class FaultVote(FaultEvent):
    """What one observer hears of the domain's heartbeats: its vote, until its next one or until that is old.

    `phi` is how sure it is that they ended, `silent_ms` how long it hears none. `since`: when it began to think so, and
    thinks so ever since.
    """

    observer: Key
    observer_region: Name
    phi: Phi
    silent_ms: Count
    since: Time


class FaultSuspected(FaultVote, type="faults.suspected"):
    """One observer misses the domain's heartbeats: its vote that it is gone."""


class FaultTrusted(FaultVote, type="faults.trusted"):
    """One observer hears the domain: it takes its vote back, or lets an isolated one in again."""


class FaultRuling(FaultEvent, Control, policy="isolation"):
    """What every ruling on a fault domain carries; risk and confidence are null where nobody estimated them.

    `cause`: why this was ruled. `scope`: how far the fault reaches. `cascading_risk`: how likely it spreads beyond.
    `voters` in `voter_regions`: whose votes it rests on, and the least `phi` among them; null where none were asked.
    """

    cause: Text
    scope: Text
    cascading_risk: Fraction | None = None
    confidence: Fraction | None = None
    voters: Keys | None = None
    voter_regions: Keys | None = None
    phi: Phi | None = None

    @property
    def written_version(self) -> int:
        return 1 if (self.voters, self.voter_regions, self.phi) == (None, None, None) else self.VERSION


def _unchanged(data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 lacked fields that may be absent."""
    return data


class FaultDetected(FaultRuling, type="faults.detected", version=2, upcasts={1: _unchanged}):
    """Something is wrong with the domain; it still takes part."""


class FaultIsolated(FaultRuling, type="faults.isolated", version=2, upcasts={1: _unchanged}):
    """The domain is cut off; null `detected_at`: isolated by order, without a fault detected before."""

    detected_at: Time | None = None


class FaultRecovering(FaultRuling, type="faults.recovering", version=2, upcasts={1: _unchanged}):
    """The domain is let back in step by step; what is known of its isolation is carried on."""

    detected_at: Time | None = None
    isolated_at: Time
    isolation_reason: Text


class FaultRecovered(FaultRuling, type="faults.recovered", version=2, upcasts={1: _unchanged}):
    """The domain takes part in full again; null `isolated_at`: the fault went away before it was isolated."""

    detected_at: Time | None = None
    isolated_at: Time | None = None
    isolation_reason: Text | None = None
