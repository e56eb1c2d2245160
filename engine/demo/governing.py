"""The safety governor's day: it switches features off while eu is lost, and on again step by step."""

from relight.engine.demo.stage import Happened, Stage
from relight.engine.demo.world import FLEET, US
from relight.events.governor import (
    DisasterModeActivated,
    DisasterModeDeactivated,
    DisasterModeDeescalated,
    DisasterModeEscalated,
)

DEGRADED_OFF = ("speculative_calls", "long_context")
MINIMAL_OFF = (*DEGRADED_OFF, "new_tasks", "non_urgent_tasks")


async def activate(stage: Stage, cause: Happened) -> Happened:
    """normal -> degraded."""
    event = DisasterModeActivated(
        fleet=FLEET,
        reason="a region is isolated",
        signals={"regions_up": 2, "regions": 3},
        mode_level="degraded",
        disabled_features=DEGRADED_OFF,
    )
    return await stage.rule(US, event, cause=cause)


async def escalate(stage: Stage, activated: Happened) -> Happened:
    """degraded -> minimal."""
    event = DisasterModeEscalated(
        fleet=FLEET,
        reason="us is at 96 % of its rate limits",
        signals={"rate_limit_used": 0.96},
        mode_level="minimal",
        from_level="degraded",
        disabled_features=MINIMAL_OFF,
        activated_at=activated.at,
    )
    return await stage.rule(US, event, cause=activated)


async def deescalate(stage: Stage, activated: Happened, cause: Happened) -> Happened:
    """minimal -> degraded."""
    event = DisasterModeDeescalated(
        fleet=FLEET,
        reason="us is at 61 % of its rate limits for 30 minutes",
        signals={"rate_limit_used": 0.61},
        mode_level="degraded",
        from_level="minimal",
        disabled_features=DEGRADED_OFF,
        activated_at=activated.at,
    )
    return await stage.rule(US, event, cause=cause)


async def deactivate(stage: Stage, activated: Happened, cause: Happened) -> Happened:
    """degraded -> normal."""
    event = DisasterModeDeactivated(
        fleet=FLEET,
        reason="all regions are healthy",
        signals={"regions_up": 3, "regions": 3},
        from_level="degraded",
        activated_at=activated.at,
    )
    return await stage.rule(US, event, cause=cause)
