"""Midnight: queues and failover policies are declared; then a drill, and what is copied between regions all day."""

from datetime import timedelta

from relight.engine.demo.stage import Stage, Storyline
from relight.engine.demo.world import AP, EU, FLEET, US, WORKS
from relight.events.certification import CertificationGranted, CertificationLevel, CertificationTested
from relight.events.envelope import PLATFORM
from relight.events.failover import FailoverAborted, FailoverPolicyDeclared, FailoverStarted, Manner
from relight.events.queues import QueueDeclared, QueueReplicated

FALLBACKS = {EU: (US, AP), US: (AP, EU), AP: (US, EU)}
OLD_CERTIFICATION = "cert-fleet-spring"
OPERATOR = "operator:maria"


async def declarations(stage: Stage) -> Storyline:
    """How things are meant to be."""
    yield "00:01"
    for source, fallbacks in FALLBACKS.items():
        policy = FailoverPolicyDeclared(
            policy_name=f"{source}-lost",
            source_region=source,
            fallback_regions=fallbacks,
            conditions={"suspected_by_regions": 2, "silent_for_s": 30},
            is_active=True,
            declared_by=OPERATOR,
        )
        stage.facts[f"policy {source}"] = stage.record(source, policy, tenant=PLATFORM)
    for work in WORKS:
        declared = QueueDeclared(
            queue_name=work.queue,
            primary_region=work.primary,
            replica_regions=work.replicas,
            is_active=True,
            reason="first declaration",
        )
        stage.facts[f"queue {work.queue}"] = await stage.rule(work.primary, declared, tenant=work.tenant)
    yield "00:05"
    tested = None
    for name in ("restart_of_an_agent", "loss_of_a_provider", "loss_of_a_region"):
        test = CertificationTested(
            certification=OLD_CERTIFICATION,
            component_name=FLEET,
            test_name=name,
            test_category="drill",
            passed=True,
            executed_at=stage.now(),
        )
        tested = stage.record(EU, test, tenant=PLATFORM, cause=tested)
    granted = CertificationGranted(
        certification=OLD_CERTIFICATION,
        component_name=FLEET,
        certification_level=CertificationLevel.STANDARD,
        tests_passed=3,
        tests_failed=0,
        overall_score=1.0,
        granted_by=OPERATOR,
        expires_at=stage.now() + timedelta(days=90),
    )
    stage.facts["old certification"] = stage.record(EU, granted, tenant=PLATFORM, cause=tested)


async def drill(stage: Stage) -> Storyline:
    """An operator drains ap for maintenance, and calls it off."""
    yield "04:00"
    started = await stage.rule(
        AP,
        FailoverStarted(
            fleet=FLEET,
            source_region=AP,
            target_region=US,
            active_regions=(EU, US),
            reason="maintenance of ap's network",
            is_degraded_mode=False,
            compliance_preserved=True,
            ordered_by=OPERATOR,
            expires_at=stage.now() + timedelta(hours=2),
            manner=Manner.GRACEFUL,
        ),
    )
    yield "04:10"
    await stage.rule(
        AP,
        FailoverAborted(
            fleet=FLEET,
            source_region=AP,
            target_region=US,
            active_regions=(EU, US, AP),
            reason="the maintenance was called off",
            is_degraded_mode=False,
            compliance_preserved=True,
            ordered_by=OPERATOR,
        ),
        cause=started,
    )


async def queue_copies(stage: Stage) -> Storyline:
    """Every two hours the waiting tasks are copied to the regions that are up."""
    random = stage.random("queues")
    for hour in range(1, 24, 2):
        yield f"{hour}:30"
        for work in WORKS:
            leading = work.primary if work.primary in stage.up() else work.replicas[0]
            for replica in (work.primary, *work.replicas):
                if replica == leading or replica not in stage.up():
                    continue
                copied = QueueReplicated(
                    queue_name=work.queue,
                    from_region=leading,
                    to_region=replica,
                    task_count=random.randint(0, 40),
                    lag_ms=random.randint(20, 400),
                )
                stage.record(leading, copied, tenant=work.tenant, cause=stage.facts[f"queue {work.queue}"])
