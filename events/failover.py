"""Failover: how an operator wants regions to stand in for each other, and how a fleet's traffic was moved."""

from enum import StrEnum

from relight.events.base import Control, Event
from relight.events.values import Content, Fraction, JsonObject, Key, Keys, Name, Text, Time


class Manner(StrEnum):
    """How traffic leaves a region."""

    GRACEFUL = "graceful"
    FORCED = "forced"


class FailoverPolicyDeclared(Event, type="failover.policy_declared", entity="policy_name"):
    """An operator's configuration: who stands in for a region, in order of preference, and under which conditions.

    Declaring a name again replaces all of it; `is_active` false withdraws it.
    """

    policy_name: Key
    source_region: Name
    fallback_regions: Keys
    conditions: JsonObject = {}
    is_active: bool
    declared_by: Key | None = None


class FailoverRuling(Control, policy="failover", entity="fleet"):
    """What every ruling on a fleet's routing carries.

    The whole routing table of a fleet is one scope, so that no two regions can switch each other off: `active_regions`
    are those that take traffic from this ruling on. Traffic leaves `source_region` for `target_region`, in all facts.
    `policy_name` is null and `ordered_by` names the operator where no declared policy ruled; `expires_at` is when
    such an override ends. `compliance_preserved`: no data leaves where it has to stay.
    """

    fleet: Key
    policy_name: Key | None = None
    source_region: Name
    target_region: Name
    active_regions: Keys
    reason: Text
    is_degraded_mode: bool
    compliance_preserved: bool
    confidence: Fraction | None = None
    ordered_by: Key | None = None
    expires_at: Time | None = None


class FailoverStarted(FailoverRuling, type="failover.started"):
    """The source takes no new work: it drains (graceful), or is switched off with work in hand (forced).

    A drain that takes too long is followed by a second `started`, forced.
    """

    manner: Manner


class FailoverCompleted(FailoverRuling, type="failover.completed"):
    """The target has all traffic; the receipt says what is confirmed there, absent, or in doubt."""

    receipt: Content | None = None


class FailoverAborted(FailoverRuling, type="failover.aborted"):
    """The traffic stays with, or went back to, the source before the target had all of it."""


class FailoverReturned(FailoverRuling, type="failover.returned"):
    """Failback: after a completed failover, the source has its traffic again."""

    receipt: Content | None = None
