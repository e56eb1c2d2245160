"""What the fleet of a drill does: agent calls of several tenants, and what the other subsystems say about them."""

from collections.abc import Iterator
from datetime import UTC, datetime

from relight.events.base import Control, Event
from relight.events.breakers import BreakerFailed, BreakerOpened, BreakerSucceeded
from relight.events.certification import CertificationTested
from relight.events.decisions import DecisionCheckpointed, DecisionOutcomeKnown, DecisionTaken, Outcome
from relight.events.failover import FailoverPolicyDeclared, FailoverStarted, Manner
from relight.events.faults import DomainType, FaultDetected
from relight.events.governor import DisasterModeActivated
from relight.events.incidents import IncidentActionTaken, IncidentOpened, Severity
from relight.events.intelligence import IntelligenceReplicationRequested, IntelligenceSnapshotTaken
from relight.events.queues import QueueDeclared, QueueReplicated
from relight.events.tasks import TaskAssigned, TaskSubmitted
from relight.events.values import Content

REGION = "eu"
MODELS, AGENTS = 5, 50
FAILS_EVERY = 20
INCIDENT_EVERY = 100
EVENTS_OF_A_CALL = 4
IN_HISTORY = ("decisions.", "breakers.", "incidents.")
"""Every event of these leaves a row of its own in a history table."""


def decision(call: int) -> str:
    return f"call-{call}"


def service(call: int) -> str:
    return f"anthropic/claude-{call % MODELS}/{REGION}"


def incident(call: int) -> str:
    return f"inc-{call - call % INCIDENT_EVERY}"


def of_call(call: int) -> Iterator[Event]:
    """The observations of one call; every hundredth opens an incident besides."""
    failed = call % FAILS_EVERY == 0
    yield DecisionTaken(
        decision=decision(call),
        decision_type="agent_call",
        agent=f"agent-{call % AGENTS}",
        task=f"task-{call % 500}",
        context={"attempt": 1, "order": call, "channel": "mail"},
        decision_taken="messages.create",
        provider="anthropic",
        model=f"claude-{call % MODELS}",
    )
    yield DecisionCheckpointed(
        decision=decision(call),
        checkpoint_type="attempt",
        state_snapshot={"number": 1, "status": 529 if failed else 200, "elapsed_ms": call % 900},
    )
    yield DecisionOutcomeKnown(
        decision=decision(call),
        outcome=Outcome.FAILURE if failed else Outcome.SUCCESS,
        error_class="overloaded_error" if failed else None,
        input_tokens=1_200 + call % 700,
        output_tokens=call % 900,
        latency_ms=300 + call % 5_000,
    )
    if failed:
        yield BreakerFailed(service_name=service(call), error_class="overloaded_error", details={"status": 529})
    else:
        yield BreakerSucceeded(service_name=service(call), latency_ms=300 + call % 5_000)
    if call % INCIDENT_EVERY == 0:
        yield IncidentOpened(
            incident=incident(call),
            executed_by="governor",
            incident_name="model overloaded",
            severity=Severity.HIGH,
            affected_domains=(REGION,),
            description="calls fail",
        )
        yield IncidentActionTaken(incident=incident(call), executed_by="ops", action_taken="switched model")


def standing() -> Iterator[Event]:
    """Once for each tenant: what the subsystems beside the calls have to show."""
    now = datetime.now(UTC)
    content = Content(sha256="0" * 64, size_bytes=70_000)
    yield FailoverPolicyDeclared(
        policy_name="eu-out", source_region=REGION, fallback_regions=("us",), conditions={"rtt": 5}, is_active=True
    )
    yield QueueReplicated(queue_name="refunds", from_region=REGION, to_region="us", task_count=9, lag_ms=40)
    yield IntelligenceSnapshotTaken(
        snapshot="snap-1", snapshot_type="session", source_region=REGION, task="task-1", epoch=1, content=content
    )
    yield IntelligenceReplicationRequested(snapshot="snap-1", target_region="us")
    yield CertificationTested(
        certification="cert-1",
        component_name="guard",
        test_name="region lost",
        test_category="chaos",
        passed=True,
        executed_at=now,
    )


def rulings() -> Iterator[Control]:
    """Once for each tenant: what its policies decided."""
    now = datetime.now(UTC)
    yield BreakerOpened(service_name=service(0), reason="5 of 8 failed", failure_count=5, next_retry_at=now)
    yield FaultDetected(
        domain_type=DomainType.REGION,
        domain_identifier=REGION,
        cause="errors",
        scope="region",
        cascading_risk=0.4,
        confidence=0.8,
    )
    yield FailoverStarted(
        fleet="fleet",
        source_region=REGION,
        target_region="us",
        active_regions=("us",),
        reason="phi 9.1",
        is_degraded_mode=False,
        compliance_preserved=True,
        manner=Manner.FORCED,
    )
    yield TaskSubmitted(task="task-1", queue="refunds", payload=Content(sha256="0" * 64, size_bytes=900))
    yield TaskAssigned(task="task-1", owner="agent-1", owner_region=REGION)
    yield QueueDeclared(
        queue_name="refunds", primary_region=REGION, replica_regions=("us",), is_active=True, reason="set up"
    )
    yield DisasterModeActivated(
        fleet="fleet", reason="load", signals={"p99": 9.5}, mode_level="degraded", disabled_features=("tools",)
    )
