"""Region eu is lost for an hour and a half: isolated, failed over, its tasks and queues moved, and all of it back."""

from relight.engine.demo.governing import activate, deactivate, deescalate, escalate
from relight.engine.demo.moving import migrated, move_queues, move_queues_back, not_migrated, reassign
from relight.engine.demo.opening import FALLBACKS, OLD_CERTIFICATION, OPERATOR
from relight.engine.demo.stage import Happened, Stage, Storyline
from relight.engine.demo.tasks import keep
from relight.engine.demo.world import AP, EU, FLEET, FOLLOWED_TASK, US
from relight.events.certification import CertificationRevoked
from relight.events.envelope import PLATFORM
from relight.events.failover import FailoverCompleted, FailoverReturned, FailoverStarted, Manner
from relight.events.faults import DomainType, FaultDetected, FaultIsolated, FaultRecovered, FaultRecovering
from relight.events.values import Content

POLICY = f"{EU}-lost"
REASON = "eu is lost"
DOMAIN, SCOPE = DomainType.REGION, "all agents, queues and tasks in eu"


async def region_loss(stage: Stage) -> Storyline:
    """eu, from 14:00 to 16:15."""
    yield "14:00"
    stage.lost.add(EU)
    yield "14:00:40"
    detected = await _detect(stage)
    yield "14:01:10"
    isolated = stage.facts["eu isolated"] = await _isolate(stage, detected)
    yield "14:01:30"
    activated = await activate(stage, isolated)
    started = await _start_failover(stage, isolated)
    await move_queues(stage, US, started)
    moving = {
        task: await reassign(stage, task, US, REASON, started)
        for task, holder in sorted(stage.held.items())
        if holder.region == EU
    }
    yield "14:02:30"
    for task, migration in moving.items():
        if task != FOLLOWED_TASK:
            migrated(stage, task, EU, REASON, migration)
            stage.clock.advance(1)
    failed = not_migrated(stage, FOLLOWED_TASK, EU, "us has no room for its state", moving[FOLLOWED_TASK])
    second = await reassign(stage, FOLLOWED_TASK, AP, "the first new owner could not take over", failed)
    yield "14:03:30"
    migrated(stage, FOLLOWED_TASK, US, "the first new owner could not take over", second)
    yield "14:04"
    escalated = await escalate(stage, activated)
    yield "14:06"
    completed = await _complete_failover(stage, sorted(moving), started)
    revoked = CertificationRevoked(
        certification=OLD_CERTIFICATION,
        component_name=FLEET,
        reason="a region was lost: test it anew",
        revoked_by=OPERATOR,
    )
    stage.record(US, revoked, tenant=PLATFORM, cause=completed)
    yield "14:45"
    deescalated = await deescalate(stage, activated, escalated)
    yield "15:30"
    stage.lost.discard(EU)
    recovering = await _recover(stage, detected, isolated)
    yield "16:00"
    returned = await _return(stage, recovering)
    await move_queues_back(stage, US, returned)
    yield "16:10"
    recovered = await _recovered(stage, detected, isolated, returned)
    yield "16:15"
    assert deescalated.at < recovered.at
    stage.facts["normal again"] = await deactivate(stage, activated, recovered)


async def _detect(stage: Stage) -> Happened:
    event = FaultDetected(
        domain_type=DOMAIN,
        domain_identifier=EU,
        cause="no heartbeat for 30 s, seen from us and ap",
        scope=SCOPE,
        cascading_risk=0.5,
        confidence=0.8,
    )
    return await stage.rule(US, event)


async def _isolate(stage: Stage, detected: Happened) -> Happened:
    event = FaultIsolated(
        domain_type=DOMAIN,
        domain_identifier=EU,
        cause=REASON,
        scope=SCOPE,
        cascading_risk=0.7,
        confidence=0.95,
        detected_at=detected.at,
    )
    return await stage.rule(AP, event, cause=detected)


async def _start_failover(stage: Stage, isolated: Happened) -> Happened:
    event = FailoverStarted(
        fleet=FLEET,
        policy_name=POLICY,
        source_region=EU,
        target_region=US,
        active_regions=FALLBACKS[EU],
        reason=REASON,
        is_degraded_mode=True,
        compliance_preserved=True,
        confidence=0.95,
        manner=Manner.FORCED,
    )
    return await stage.rule(US, event, cause=isolated)


async def _complete_failover(stage: Stage, tasks: list[str], started: Happened) -> Happened:
    event = FailoverCompleted(
        fleet=FLEET,
        policy_name=POLICY,
        source_region=EU,
        target_region=US,
        active_regions=FALLBACKS[EU],
        reason="all traffic and tasks of eu are in us and ap",
        is_degraded_mode=True,
        compliance_preserved=True,
        confidence=0.95,
        receipt=_receipt(stage, tasks, started),
    )
    return await stage.rule(US, event, cause=started)


def _receipt(stage: Stage, tasks: list[str], started: Happened) -> Content:
    confirmed = [{"task": task, "owner": stage.held[task].owner} for task in tasks]
    return keep(stage, US, PLATFORM, {"of": started.id, "confirmed": confirmed, "absent": [], "in_doubt": []})


async def _recover(stage: Stage, detected: Happened, isolated: Happened) -> Happened:
    event = FaultRecovering(
        domain_type=DOMAIN,
        domain_identifier=EU,
        cause="heartbeats for 5 minutes",
        scope=SCOPE,
        cascading_risk=0.3,
        confidence=0.8,
        detected_at=detected.at,
        isolated_at=isolated.at,
        isolation_reason=REASON,
    )
    return await stage.rule(US, event, cause=isolated)


async def _return(stage: Stage, recovering: Happened) -> Happened:
    event = FailoverReturned(
        fleet=FLEET,
        policy_name=POLICY,
        source_region=EU,
        target_region=US,
        active_regions=(EU, *FALLBACKS[EU]),
        reason="eu carries its traffic again",
        is_degraded_mode=False,
        compliance_preserved=True,
        confidence=0.9,
    )
    return await stage.rule(EU, event, cause=recovering)


async def _recovered(stage: Stage, detected: Happened, isolated: Happened, returned: Happened) -> Happened:
    event = FaultRecovered(
        domain_type=DOMAIN,
        domain_identifier=EU,
        cause="healthy for 40 minutes",
        scope=SCOPE,
        cascading_risk=0.1,
        confidence=0.95,
        detected_at=detected.at,
        isolated_at=isolated.at,
        isolation_reason=REASON,
    )
    return await stage.rule(US, event, cause=returned)
