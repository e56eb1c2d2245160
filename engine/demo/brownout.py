"""A provider's brown-out: its breaker opens, half-opens, opens again and closes; the provider is isolated meanwhile."""

from datetime import timedelta
from random import Random

from relight.engine.demo.stage import Happened, Stage, Storyline
from relight.engine.demo.traffic import call, decide
from relight.engine.demo.world import FOLLOWED_CALL, GLOBEX, LEDGER, ORION, REFUNDS, US, provider_in
from relight.events.breakers import BreakerClosed, BreakerFailed, BreakerHalfOpened, BreakerOpened
from relight.events.envelope import PLATFORM
from relight.events.faults import DomainType, FaultDetected, FaultIsolated, FaultRecovered, FaultRecovering

SERVICE = provider_in(ORION, US)
FAILURES = 4
DOMAIN, IDENTIFIER, SCOPE = DomainType.PROVIDER, ORION, "calls from us"


async def brownout(stage: Stage) -> Storyline:
    """orion, as us sees it, from 09:00 to 09:40."""
    random = stage.random("brown-out")
    yield "09:00"
    stage.failing[SERVICE] = 1.0
    failed: list[Happened] = []
    for minute in range(1, FAILURES + 1):
        yield f"09:0{minute}"
        made = decide(stage, US, REFUNDS, random, call_key=FOLLOWED_CALL if minute == FAILURES else None)
        failed.append(made.attempts[0])
    detected = await stage.rule(
        US,
        FaultDetected(
            domain_type=DOMAIN,
            domain_identifier=IDENTIFIER,
            cause="every call is answered with 529",
            scope=SCOPE,
            cascading_risk=0.4,
            confidence=0.7,
        ),
        cause=failed[-1],
    )
    opened = await _open(stage, SERVICE, f"{FAILURES} failures in a row", failed[-1], failures=FAILURES, minutes=5)
    yield "09:10"
    half_opened = await _half_open(stage, SERVICE, opened, failures=FAILURES)
    probed = _probe(stage, random, half_opened)
    reopened = await _open(stage, SERVICE, "the probe failed", probed, failures=FAILURES + 1, minutes=10)
    reason = "its breaker opened twice"
    isolated = await stage.rule(
        US,
        FaultIsolated(
            domain_type=DOMAIN,
            domain_identifier=IDENTIFIER,
            cause=reason,
            scope=SCOPE,
            cascading_risk=0.6,
            confidence=0.9,
            detected_at=detected.at,
        ),
        cause=reopened,
    )
    yield "09:20:30"
    del stage.failing[SERVICE]
    half_opened = await _half_open(stage, SERVICE, reopened, failures=FAILURES + 1)
    probed = _probe(stage, random, half_opened)
    stage.open.discard(SERVICE)
    closed = await stage.rule(US, BreakerClosed(service_name=SERVICE, reason="the probe was answered"), cause=probed)
    recovering = await stage.rule(
        US,
        FaultRecovering(
            domain_type=DOMAIN,
            domain_identifier=IDENTIFIER,
            cause="its breaker closed",
            scope=SCOPE,
            cascading_risk=0.2,
            confidence=0.8,
            detected_at=detected.at,
            isolated_at=isolated.at,
            isolation_reason=reason,
        ),
        cause=closed,
    )
    yield "09:40"
    await stage.rule(
        US,
        FaultRecovered(
            domain_type=DOMAIN,
            domain_identifier=IDENTIFIER,
            cause="no failure for 20 minutes",
            scope=SCOPE,
            cascading_risk=0.0,
            confidence=0.95,
            detected_at=detected.at,
            isolated_at=isolated.at,
            isolation_reason=reason,
        ),
        cause=recovering,
    )


async def ledger_down(stage: Stage) -> Storyline:
    """A tool of globex' agents stops answering; its breaker is open when the day ends."""
    yield "23:30"
    failed = _ledger_failed(stage, None)
    for _ in range(2):
        stage.clock.advance(15)
        failed = _ledger_failed(stage, failed)
    opened = await _open(stage, LEDGER, "3 timeouts in a row", failed, failures=3, minutes=10, tenant=GLOBEX)
    yield "23:45"
    half_opened = await _half_open(stage, LEDGER, opened, failures=3, tenant=GLOBEX)
    failed = _ledger_failed(stage, half_opened)
    await _open(stage, LEDGER, "the probe timed out", failed, failures=4, minutes=20, tenant=GLOBEX)


def _ledger_failed(stage: Stage, cause: Happened | None) -> Happened:
    failed = BreakerFailed(service_name=LEDGER, error_class="TimeoutError", details={"after_s": 10})
    return stage.record(US, failed, tenant=GLOBEX, cause=cause)


def _probe(stage: Stage, random: Random, half_opened: Happened) -> Happened:
    """The breaker's event of the one call that may pass."""
    with stage.following(half_opened, tenant=REFUNDS.tenant, agent=REFUNDS.agent(US)):
        return call(stage, US, random, providers=(ORION,), probe=True).attempts[0]


async def _open(
    stage: Stage,
    service: str,
    reason: str,
    cause: Happened,
    *,
    failures: int,
    minutes: int,
    tenant: str = PLATFORM,
) -> Happened:
    retry_at = stage.now() + timedelta(minutes=minutes)
    event = BreakerOpened(service_name=service, reason=reason, failure_count=failures, next_retry_at=retry_at)
    stage.open.add(service)
    return await stage.rule(US, event, tenant=tenant, cause=cause)


async def _half_open(
    stage: Stage, service: str, opened: Happened, *, failures: int, tenant: str = PLATFORM
) -> Happened:
    event = BreakerHalfOpened(
        service_name=service, reason="its time to retry has come", failure_count=failures, opened_at=opened.at
    )
    return await stage.rule(US, event, tenant=tenant, cause=opened)
