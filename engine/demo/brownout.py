"""A provider's brown-out: its breaker opens, half-opens, opens again and closes; the provider is isolated meanwhile."""

from datetime import timedelta
from random import Random

from relight.engine.demo.stage import Happened, Stage, Storyline
from relight.engine.demo.traffic import call, decide
from relight.engine.demo.world import FOLLOWED_CALL, GLOBEX, LEDGER, ORION, REFUNDS, US, provider_in
from relight.events.breakers import (
    BreakerClosed,
    BreakerFailed,
    BreakerHalfOpened,
    BreakerOpened,
    BreakerReset,
    BreakerTripped,
)
from relight.events.envelope import PLATFORM
from relight.events.faults import DomainType, FaultDetected, FaultIsolated, FaultRecovered, FaultRecovering

SERVICE = provider_in(ORION, US)
FAILURES = 4
PROCESSES = (("agents-us-1", "rack-1"), ("agents-us-2", "rack-1"), ("agents-us-3", "rack-2"))
"""Whose own breakers trip, and what they would fail together with."""
HOLDER = PROCESSES[0][0]
"""Who gets the probes."""
LEASE_S = 30
QUORUM = "3 processes in 2 fault domains tripped"
PROBE_FAILED = f"the probe of {HOLDER} failed"
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
    opened = await _open(stage, SERVICE, QUORUM, _trip(stage, SERVICE, failed[-1]), openings=1, failures=12, minutes=5)
    yield "09:10"
    half_opened = await _half_open(stage, SERVICE, opened, openings=1, failures=12)
    voted = _trip_again(stage, SERVICE, _probe(stage, random, half_opened))
    reopened = await _open(stage, SERVICE, PROBE_FAILED, voted, openings=2, failures=13, minutes=10)
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
    half_opened = await _half_open(stage, SERVICE, reopened, openings=2, failures=13)
    answered = _reset(stage, SERVICE, "its probe was answered", _probe(stage, random, half_opened))
    stage.open.discard(SERVICE)
    reason_closed = f"the probe of {HOLDER} was answered"
    closed = await stage.rule(US, BreakerClosed(service_name=SERVICE, reason=reason_closed), cause=answered)
    for process in PROCESSES[1:]:
        _reset(stage, SERVICE, "the fleet closed it", closed, process=process)
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
    voted = _trip(stage, LEDGER, failed, failures=3, tenant=GLOBEX)
    opened = await _open(stage, LEDGER, QUORUM, voted, openings=1, failures=9, minutes=10, tenant=GLOBEX)
    yield "23:45"
    half_opened = await _half_open(stage, LEDGER, opened, openings=1, failures=9, tenant=GLOBEX)
    voted = _trip_again(stage, LEDGER, _ledger_failed(stage, half_opened), tenant=GLOBEX)
    await _open(stage, LEDGER, PROBE_FAILED, voted, openings=2, failures=10, minutes=20, tenant=GLOBEX)


def _ledger_failed(stage: Stage, cause: Happened | None) -> Happened:
    failed = BreakerFailed(service_name=LEDGER, error_class="TimeoutError", details={"after_s": 10})
    return stage.record(US, failed, tenant=GLOBEX, cause=cause)


def _probe(stage: Stage, random: Random, half_opened: Happened) -> Happened:
    """The breaker's event of the one call that may pass."""
    with stage.following(half_opened, tenant=REFUNDS.tenant, agent=REFUNDS.agent(US)):
        return call(stage, US, random, providers=(ORION,), probe=True).attempts[0]


def _trip(stage: Stage, service: str, cause: Happened, *, failures: int = FAILURES, tenant: str = PLATFORM) -> Happened:
    """A quorum of processes trips; gives the last one's vote."""
    for process, fault_domain in PROCESSES:
        vote = BreakerTripped(
            service_name=service,
            process=process,
            fault_domain=fault_domain,
            reason=f"{failures} failures in a row",
            failure_count=failures,
            retry_at=stage.now() + timedelta(minutes=1),
        )
        voted = stage.record(US, vote, tenant=tenant, cause=cause)
    return voted


def _trip_again(stage: Stage, service: str, cause: Happened, *, tenant: str = PLATFORM) -> Happened:
    """The process that has the probes trips, for its probe failed."""
    vote = BreakerTripped(
        service_name=service,
        process=HOLDER,
        fault_domain=PROCESSES[0][1],
        reason="the fleet's probe failed",
        failure_count=1,
        retry_at=stage.now() + timedelta(minutes=1),
    )
    return stage.record(US, vote, tenant=tenant, cause=cause)


def _reset(
    stage: Stage, service: str, reason: str, cause: Happened, *, process: tuple[str, str] = PROCESSES[0]
) -> Happened:
    reset = BreakerReset(service_name=service, process=process[0], fault_domain=process[1], reason=reason)
    return stage.record(US, reset, tenant=PLATFORM, cause=cause)


async def _open(
    stage: Stage,
    service: str,
    reason: str,
    cause: Happened,
    *,
    openings: int,
    failures: int,
    minutes: int,
    tenant: str = PLATFORM,
) -> Happened:
    event = BreakerOpened(
        service_name=service,
        reason=reason,
        failure_count=failures,
        next_retry_at=stage.now() + timedelta(minutes=minutes),
        processes=tuple(process for process, _ in PROCESSES),
        fault_domains=tuple(sorted({fault_domain for _, fault_domain in PROCESSES})),
        openings=openings,
    )
    stage.open.add(service)
    return await stage.rule(US, event, tenant=tenant, cause=cause)


async def _half_open(
    stage: Stage, service: str, opened: Happened, *, openings: int, failures: int, tenant: str = PLATFORM
) -> Happened:
    event = BreakerHalfOpened(
        service_name=service,
        reason="its time to retry has come",
        failure_count=failures,
        opened_at=opened.at,
        holder=HOLDER,
        lease_until=stage.now() + timedelta(seconds=LEASE_S),
        probes=1,
        openings=openings,
    )
    return await stage.rule(US, event, tenant=tenant, cause=opened)
