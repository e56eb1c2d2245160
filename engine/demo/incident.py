"""The incident as its operators lived it, from the call at 14:02 to the post-mortem at 20:00."""

from relight.engine.demo.opening import OPERATOR
from relight.engine.demo.stage import Happened, Stage, Storyline
from relight.engine.demo.tasks import keep
from relight.engine.demo.world import EU, INCIDENT, US
from relight.events.base import Event
from relight.events.envelope import PLATFORM
from relight.events.incidents import (
    IncidentActionTaken,
    IncidentMitigationStarted,
    IncidentOpened,
    IncidentPostmortemPublished,
    IncidentReassessed,
    IncidentResolved,
    Severity,
)

COLLEAGUE = "operator:jon"
RAISE_LIMITS = "raise the providers' rate limits in us"
REJOIN = "let eu answer a tenth of its traffic"
LEARNED = "The failover held; us had too little headroom, and one task's state was too large for it."


async def incident(stage: Stage) -> Storyline:
    yield "14:02"
    last = _record(
        stage,
        IncidentOpened(
            incident=INCIDENT,
            executed_by=OPERATOR,
            incident_name="Region eu is lost",
            severity=Severity.HIGH,
            affected_domains=("region:eu",),
            description="No agent in eu answers; refunds and claims wait.",
        ),
        stage.facts["eu isolated"],
    )
    yield "14:03"
    call = "call the owners of refunds and claims"
    last = _record(stage, _action(OPERATOR, call, assumptions=("both queues are failed over",)), last)
    yield "14:05"
    reassessed = IncidentReassessed(
        incident=INCIDENT,
        executed_by=OPERATOR,
        severity=Severity.CRITICAL,
        affected_domains=("region:eu", "region:us"),
        description="us carries eu's traffic and nears its rate limits.",
        reason="the governor went to minimal",
    )
    last = _record(stage, reassessed, last)
    yield "14:08"
    steps = ("keep eu out", "give us more room", "let eu back in once it is healthy")
    mitigation = IncidentMitigationStarted(incident=INCIDENT, executed_by=OPERATOR, remediation_steps=steps)
    last = _record(stage, mitigation, last)
    yield "14:12"
    last = _record(stage, _action(COLLEAGUE, RAISE_LIMITS, assumptions=("the contract allows 40 % more",)), last)
    yield "14:38"
    last = _record(stage, _action(COLLEAGUE, RAISE_LIMITS, result="40 % more since 14:35"), last)
    yield "15:32"
    last = _record(stage, _action(OPERATOR, REJOIN, assumptions=("eu has no backlog",)), last)
    yield "15:58"
    last = _record(stage, _action(OPERATOR, REJOIN, result="no failure in 25 minutes"), last)
    yield "16:20"
    resolved = IncidentResolved(
        incident=INCIDENT, executed_by=OPERATOR, resolution="eu leads its queues again; the fleet is in normal mode."
    )
    last = _record(stage, resolved, last)
    yield "20:00"
    document = keep(stage, US, PLATFORM, {"incident": INCIDENT, "learned": LEARNED, "lost": EU})
    postmortem = IncidentPostmortemPublished(
        incident=INCIDENT, executed_by=COLLEAGUE, summary=LEARNED, document=document
    )
    stage.facts["post-mortem"] = _record(stage, postmortem, last)


def _action(by: str, action: str, *, assumptions: tuple[str, ...] = (), result: str | None = None) -> Event:
    return IncidentActionTaken(
        incident=INCIDENT, executed_by=by, action_taken=action, assumptions=assumptions, result=result
    )


def _record(stage: Stage, event: Event, cause: Happened) -> Happened:
    return stage.record(US, event, tenant=PLATFORM, cause=cause)
