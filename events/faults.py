"""Fault domains: tenants, regions, engines and providers that fail, are cut off from the rest, and come back."""

from enum import StrEnum

from relight.events.base import Control
from relight.events.values import Fraction, Key, Text, Time


class DomainType(StrEnum):
    """What kind of thing fails as one."""

    TENANT = "tenant"
    REGION = "region"
    ENGINE = "engine"
    PROVIDER = "provider"


class FaultRuling(Control, policy="isolation", entity="domain"):
    """What every ruling on a fault domain carries; risk and confidence are null where nobody estimated them.

    `cause`: why this was ruled. `scope`: how far the fault reaches. `cascading_risk`: how likely it spreads beyond.
    """

    domain_type: DomainType
    domain_identifier: Key
    cause: Text
    scope: Text
    cascading_risk: Fraction | None = None
    confidence: Fraction | None = None

    @property
    def domain(self) -> str:
        """`region:eu`; no two domains have the same, as no type holds a colon."""
        return f"{self.domain_type.value}:{self.domain_identifier}"


class FaultDetected(FaultRuling, type="faults.detected"):
    """Something is wrong with the domain; it still takes part."""


class FaultIsolated(FaultRuling, type="faults.isolated"):
    """The domain is cut off; null `detected_at`: isolated by order, without a fault detected before."""

    detected_at: Time | None = None


class FaultRecovering(FaultRuling, type="faults.recovering"):
    """The domain is let back in step by step; what is known of its isolation is carried on."""

    detected_at: Time | None = None
    isolated_at: Time
    isolation_reason: Text


class FaultRecovered(FaultRuling, type="faults.recovered"):
    """The domain takes part in full again; null `isolated_at`: the fault went away before it was isolated."""

    detected_at: Time | None = None
    isolated_at: Time | None = None
    isolation_reason: Text | None = None
