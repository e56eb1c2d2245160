"""The evening: the fleet is tested in the field anew, and certified."""

from datetime import timedelta

from relight.engine.demo.opening import OPERATOR
from relight.engine.demo.stage import Happened, Stage, Storyline
from relight.engine.demo.world import FLEET, REGIONS, US
from relight.events.certification import CertificationGranted, CertificationLevel, CertificationTested
from relight.events.envelope import PLATFORM

CERTIFICATION = "cert-fleet-autumn"
TESTS = (
    ("failover_of_a_region", "failover", True),
    ("failback_within_15_minutes", "failover", False),
    ("no_task_is_completed_twice", "tasks", True),
    ("memory_is_read_back_in_every_region", "intelligence", True),
    ("an_open_breaker_lets_nothing_pass", "breakers", True),
    ("governor_returns_to_normal", "governor", True),
    ("queues_return_to_their_primary", "queues", True),
    ("every_decision_can_be_explained", "decisions", True),
)


async def certification(stage: Stage) -> Storyline:
    """One test after another, each in another region, then the certificate."""
    random = stage.random("certification")
    last: Happened | None = None
    for number, (name, category, passed) in enumerate(TESTS):
        yield f"21:{number * 5:02}"
        test = CertificationTested(
            certification=CERTIFICATION,
            component_name=FLEET,
            test_name=name,
            test_category=category,
            passed=passed,
            details={"repetitions": random.randint(3, 20)},
            executed_at=stage.now(),
        )
        last = stage.record(
            REGIONS[number % len(REGIONS)], test, tenant=PLATFORM, cause=last or stage.facts["post-mortem"]
        )
    yield "22:00"
    passes = sum(passed for _, _, passed in TESTS)
    granted = CertificationGranted(
        certification=CERTIFICATION,
        component_name=FLEET,
        certification_level=CertificationLevel.ADVANCED,
        tests_passed=passes,
        tests_failed=len(TESTS) - passes,
        overall_score=passes / len(TESTS),
        granted_by=OPERATOR,
        expires_at=stage.now() + timedelta(days=90),
    )
    stage.record(US, granted, tenant=PLATFORM, cause=last)
