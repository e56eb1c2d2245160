"""Failover: how regions stand in for each other, how a fleet's traffic was moved, and which rules were suspended."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from relight.events.base import Control, Event
from relight.events.values import Content, Count, EventId, Fraction, JsonObject, Key, Keys, Name, Ordinal, Text, Time


class Manner(StrEnum):
    """How traffic leaves a region."""

    GRACEFUL = "graceful"
    FORCED = "forced"


class Phase(StrEnum):
    """How far a failover that stands has come."""

    DRAINING = "draining"
    """the source takes no new work and finishes what it has"""
    SWITCHING = "switching"
    """the source is off, and the target is not ready yet"""
    COMPLETED = "completed"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FleetRegion(_Frozen):
    """`residency` is where a region's data has to stay: only regions of the same one, or `allowed`, stand in for it."""

    name: Name
    residency: Name | None = None
    allowed: Keys = ()


class StandBy(_Frozen):
    """A policy in force: who stands in for a region, in order of preference, under which conditions, and how."""

    policy_name: Key
    source_region: Name
    fallback_regions: Keys
    conditions: JsonObject = {}
    manner: Manner = Manner.FORCED


class StandIn(_Frozen):
    """A failover that stands: under way, or completed and not returned.

    `failover` is the id of the ruling that began it, `since` when this phase did. `override`: the one without which
    it would have broken a rule.
    """

    failover: EventId
    source_region: Name
    target_region: Name
    phase: Phase
    begun_at: Time
    since: Time
    policy_name: Key | None = None
    override: EventId | None = None


class Override(_Frozen):
    """Rules that an operator has suspended until then; `override` is the id of the ruling that did."""

    override: EventId
    rules: Keys
    ordered_by: Key
    reason: Text
    expires_at: Time


class Routing(_Frozen):
    """All that a fleet's routing has come to, so that its last ruling is the whole truth.

    `active` take traffic. `begun` is when failovers began within the last `window_s`, in which there may be at most
    `max_failovers`; a drain that takes longer than `drain_s` is forced.
    """

    regions: Annotated[tuple[FleetRegion, ...], Field(max_length=100)]
    active: Keys
    policies: Annotated[tuple[StandBy, ...], Field(max_length=100)] = ()
    standing: Annotated[tuple[StandIn, ...], Field(max_length=100)] = ()
    overrides: Annotated[tuple[Override, ...], Field(max_length=100)] = ()
    begun: Annotated[tuple[Time, ...], Field(max_length=1_000)] = ()
    max_failovers: Ordinal = 3
    window_s: Count = 600
    drain_s: Count = 20


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


class RoutingRuling(Control, policy="failover", entity="fleet"):
    """Any ruling on a fleet's routing.

    The whole routing table of a fleet is one scope, so that no two regions can switch each other off.
    """

    fleet: Key


class FleetRuling(RoutingRuling):
    """What a ruling carries that moves no traffic; `active_regions` are those that take traffic."""

    active_regions: Keys
    reason: Text
    is_degraded_mode: bool
    compliance_preserved: bool
    ordered_by: Key | None = None
    expires_at: Time | None = None
    routing: Routing


class FleetDeclared(FleetRuling, type="failover.fleet_declared"):
    """The fleet's regions, policies and limits are these; what stands of failovers and overrides goes on standing."""


class RulesOverridden(FleetRuling, type="failover.overridden"):
    """An operator suspends `rules` until `expires_at`; this ruling's id is the override's."""

    override: EventId
    rules: Keys


class OverrideEnded(FleetRuling, type="failover.override_ended"):
    """The rules hold again: the override expired, or was withdrawn by `ordered_by`."""

    override: EventId
    rules: Keys


class FailoverRuling(RoutingRuling):
    """What every ruling on a failover carries.

    `active_regions` are those that take traffic from this ruling on. Traffic leaves `source_region` for
    `target_region`, in all facts. `policy_name` is null and `ordered_by` names the operator where no declared policy
    ruled; `expires_at` is when an override that it rests on ends. `compliance_preserved`: no data leaves where it has
    to stay. `failover` is the id of the ruling that began it.
    """

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
    failover: EventId | None = None
    routing: Routing | None = None

    @property
    def written_version(self) -> int:
        return 1 if (self.failover, self.routing) == (None, None) else self.VERSION


def _unchanged(data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 lacked fields that may be absent."""
    return data


class FailoverStarted(FailoverRuling, type="failover.started", version=2, upcasts={1: _unchanged}):
    """The source takes no new work: it drains (graceful), or is switched off with work in hand (forced).

    A drain that takes too long is followed by a second `started`, forced; a target that is lost, by one with another.
    """

    manner: Manner


class FailoverCompleted(FailoverRuling, type="failover.completed", version=2, upcasts={1: _unchanged}):
    """The target has all traffic; the receipt says what is confirmed there, absent, or in doubt."""

    receipt: Content | None = None


class FailoverAborted(FailoverRuling, type="failover.aborted", version=2, upcasts={1: _unchanged}):
    """The traffic stays with, or went back to, the source before the target had all of it."""


class FailoverReturned(FailoverRuling, type="failover.returned", version=2, upcasts={1: _unchanged}):
    """Failback: after a completed failover, the source has its traffic again."""

    receipt: Content | None = None


class ReceiptClosing(StrEnum):
    """How a receipt came to its end."""

    RETURNED = "returned"
    """all that was absent or in doubt has come, or is known to be lost"""
    GONE = "gone"
    """an operator declared that the region will not come back"""


class FailoverReceiptClosed(Control, type="failover.receipt_closed", policy="receipt", entity="failover"):
    """What became of what a failover's receipt left open; once for each failover.

    `recovered_events` are on the stream now, `lost_events` never will be; of `in_doubt_events`, and where
    `is_open_ended` of events that nobody counted, nobody knows. `receipt` is the final one.
    """

    failover: EventId
    fleet: Key
    source_region: Name
    target_region: Name
    how: ReceiptClosing
    recovered_events: Count
    lost_events: Count
    in_doubt_events: Count
    is_open_ended: bool
    reason: Text
    ordered_by: Key | None = None
    receipt: Content
