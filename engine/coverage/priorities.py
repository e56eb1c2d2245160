"""Which places come first: what surrounds them, weighed by the configuration; tests come last."""

from dataclasses import replace

from relight.engine.coverage.config import CoverageConfig
from relight.engine.coverage.models import Circumstance, Site

IN_TEST = -1
"""Below every other, whatever surrounds it."""


def prioritized(site: Site, config: CoverageConfig) -> Site:
    """The site with its priority: each circumstance counts once, however often it was seen."""
    if site.in_test:
        return replace(site, priority=IN_TEST)
    seen = {reason.circumstance for reason in site.reasons}
    return replace(site, priority=sum(_weight(circumstance, config) for circumstance in seen))


def _weight(circumstance: Circumstance, config: CoverageConfig) -> int:
    weights = config.priorities
    match circumstance:
        case Circumstance.HANDLER:
            return weights.handler
        case Circumstance.JOB:
            return weights.job
        case Circumstance.LOOP:
            return weights.loop
        case Circumstance.AGENT:
            return weights.agent
