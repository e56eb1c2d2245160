"""The events of a fleet: agent calls in their proportions, and among them what the other subsystems say."""

import hashlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count, cycle, islice

from relight.engine.clock import Clock
from relight.engine.log.chain import body_sha256
from relight.engine.log.reader import Message
from relight.engine.spool.spool import Spooled
from relight.events.base import Control, Event
from relight.events.breakers import BreakerClosed, BreakerFailed, BreakerHalfOpened, BreakerOpened, BreakerSucceeded
from relight.events.certification import CertificationGranted, CertificationLevel, CertificationTested
from relight.events.decisions import DecisionCheckpointed, DecisionOutcomeKnown, DecisionTaken, Outcome
from relight.events.envelope import GENESIS, Head, Ruling, data_json, encode
from relight.events.failover import FailoverPolicyDeclared, FailoverStarted, Manner
from relight.events.faults import DomainType, FaultDetected, FaultIsolated
from relight.events.governor import DisasterModeActivated
from relight.events.incidents import IncidentActionTaken, IncidentOpened, Severity
from relight.events.intelligence import IntelligenceReplicationCompleted, IntelligenceSnapshotTaken
from relight.events.queues import QueueDeclared, QueueReplicated
from relight.events.subjects import control_subject, observation_subject
from relight.events.tasks import TaskAssigned, TaskMigrationStarted, TaskReassigned, TaskSubmitted
from relight.events.values import Content

REGION, TENANT = "eu", "acme"
PUBLISHERS = 20
CALL_EVENTS = 4
OTHERS_EVERY = 16
"""Calls between two events of the other subsystems: 1.5 % of all."""
FAILS_EVERY = 20
START = datetime(2026, 1, 1, tzinfo=UTC)


def call(number: int) -> Iterator[Event]:
    """One agent call: what was asked, one attempt, how it came out, and what that says of the dependency."""
    decision = f"call-{number}-{hashlib.md5(b'%d' % number).hexdigest()[:12]}"
    service = f"anthropic/claude-{number % 5}/{REGION}"
    failed = number % FAILS_EVERY == 0
    yield DecisionTaken(
        decision=decision,
        decision_type="agent_call",
        agent=f"agent-{number % 50}",
        task=f"task-{number % 500}",
        context={"attempt": 1, "order": number, "channel": "mail", "budget": {"tokens": 4096, "seconds": 30}},
        decision_taken="messages.create",
        provider="anthropic",
        model=f"claude-{number % 5}",
        request=Content(sha256=_digest(number), size_bytes=2_000 + number % 3_000),
    )
    yield DecisionCheckpointed(
        decision=decision,
        checkpoint_type="attempt",
        state_snapshot={"number": 1, "status": 529 if failed else 200, "elapsed_ms": number % 900},
    )
    yield DecisionOutcomeKnown(
        decision=decision,
        outcome=Outcome.FAILURE if failed else Outcome.SUCCESS,
        error_class="overloaded_error" if failed else None,
        input_tokens=1_200 + number % 700,
        output_tokens=number % 900,
        cost_microusd=4_000 + number % 9_000,
        latency_ms=300 + number % 5_000,
        request_id=f"req_{_digest(number)[:24]}",
    )
    if failed:
        yield BreakerFailed(service_name=service, error_class="overloaded_error", details={"status": 529})
    else:
        yield BreakerSucceeded(service_name=service, latency_ms=300 + number % 5_000)


def observations(limit: int) -> Iterator[Event]:
    """`limit` events of agent calls."""
    return islice((event for number in count() for event in call(number)), limit)


def events(limit: int) -> Iterator[Event]:
    """`limit` events that touch every table, most of them of agent calls."""

    def mixed() -> Iterator[Event]:
        rest = _others()
        for number in count():
            yield from call(number)
            if number % OTHERS_EVERY == 0:
                yield next(rest)

    return islice(mixed(), limit)


def _others() -> Iterator[Event]:
    for n in count():
        later = START + timedelta(seconds=n)
        service, task, domain = f"anthropic/claude-{n % 5}/{REGION}", f"task-{n}", f"tenant-{n % 30}"
        fault = {"domain_type": DomainType.TENANT, "domain_identifier": domain, "cause": "errors", "scope": "tenant"}
        yield BreakerOpened(service_name=service, reason="5 of 8 failed", failure_count=5, next_retry_at=later)
        yield BreakerHalfOpened(service_name=service, reason="probe", failure_count=5, opened_at=later)
        yield BreakerClosed(service_name=service, reason="3 probes worked")
        yield FaultDetected.model_validate(fault | {"cascading_risk": 0.4, "confidence": 0.8})
        yield FaultIsolated.model_validate(fault | {"detected_at": later})
        yield FailoverPolicyDeclared(
            policy_name="eu-out",
            source_region=REGION,
            fallback_regions=("us", "ap"),
            conditions={"rtt": 5},
            is_active=True,
        )
        yield FailoverStarted(
            fleet=f"fleet-{n % 3}",
            source_region=REGION,
            target_region="us",
            active_regions=("us", "ap"),
            reason="phi 9.1",
            is_degraded_mode=False,
            compliance_preserved=True,
            manner=Manner.FORCED,
        )
        yield TaskSubmitted(task=task, queue="refunds", payload=Content(sha256=_digest(n), size_bytes=900))
        yield TaskAssigned(task=task, owner=f"agent-{n % 50}", owner_region=REGION)
        yield TaskReassigned(
            task=task, owner="agent-1", owner_region="us", from_owner="agent-2", from_region=REGION, reason="agent lost"
        )
        yield TaskMigrationStarted(task=task, from_region=REGION, to_region="us", reason="agent lost", started_at=later)
        yield QueueDeclared(
            queue_name=f"refunds-{n % 4}",
            primary_region=REGION,
            replica_regions=("us",),
            is_active=True,
            reason="set up",
        )
        yield QueueReplicated(
            queue_name=f"refunds-{n % 4}", from_region=REGION, to_region="us", task_count=9, lag_ms=40
        )
        yield IncidentOpened(
            incident=f"inc-{n}",
            executed_by="ops",
            incident_name="model overloaded",
            severity=Severity.HIGH,
            affected_domains=(domain, REGION),
            description="calls fail",
        )
        yield IncidentActionTaken(incident=f"inc-{n}", executed_by="ops", action_taken="switched model")
        yield DisasterModeActivated(
            fleet=f"fleet-{n % 3}",
            reason="load",
            signals={"p99": 9.5},
            mode_level="degraded",
            disabled_features=("tools",),
        )
        content = Content(sha256=_digest(n), size_bytes=70_000)
        yield IntelligenceSnapshotTaken(
            snapshot=f"snap-{n}", snapshot_type="session", source_region=REGION, task=task, epoch=1, content=content
        )
        yield IntelligenceReplicationCompleted(
            snapshot=f"snap-{n}", target_region="us", started_at=later, completed_at=later
        )
        yield CertificationTested(
            certification=f"cert-{n}",
            component_name="guard",
            test_name="region lost",
            test_category="chaos",
            passed=True,
            executed_at=later,
        )
        yield CertificationGranted(
            certification=f"cert-{n}",
            component_name="guard",
            certification_level=CertificationLevel.STANDARD,
            tests_passed=12,
            tests_failed=0,
            overall_score=0.98,
        )


def _digest(number: int) -> str:
    return hashlib.sha256(b"%d" % number).hexdigest()


def encoded(limit: int) -> list[Spooled]:
    """`limit` events as they are published: of several publishers, each with its chain."""
    clock, chains, publishers = Clock(), dict[str, tuple[int, str]](), cycle(f"p-{n:032x}" for n in range(PUBLISHERS))
    ready = []
    for event in events(limit):
        event_id, now, ruling = clock.next_id(), clock.now(), None
        if isinstance(event, Control):
            assert event.POLICY is not None
            subject = publisher = control_subject(event.POLICY, TENANT, event.entity)
        else:
            subject, publisher = observation_subject(REGION, event.TYPE, TENANT), next(publishers)
        pseq, prev = chains.get(publisher, (0, GENESIS))
        pseq += 1
        if isinstance(event, Control):
            assert event.POLICY is not None
            ruling = Ruling(rev=pseq, policy=event.POLICY, policyversion="1", decidedat=now, observedseq=0)
        body = encode(
            _head(event, event_id, now),
            data_json(event),
            source=f"relight://{REGION}/{publisher}",
            publisher=publisher,
            pseq=pseq,
            prev=prev,
            ruling=ruling,
        )
        sha256 = body_sha256(body)
        chains[publisher] = pseq, sha256
        ready.append(Spooled(len(ready) + 1, event_id, subject, body, sha256, 0))
    return ready


def _head(event: Event, event_id: str, now: datetime) -> Head:
    return Head(
        id=event_id,
        type=event.TYPE,
        version=event.VERSION,
        entity=event.entity,
        time=now,
        tenant=TENANT,
        region=REGION,
        correlationid="run-1",
    )


def messages(limit: int) -> list[Message]:
    """`limit` events as a reader gives them."""
    return [
        Message(seq, time.time_ns(), event.subject, event.body) for seq, event in enumerate(encoded(limit), start=1)
    ]
