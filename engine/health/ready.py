"""What /livez, /readyz and /startupz answer: of this process alone, at once, and without asking anybody."""

from dataclasses import dataclass

from relight.engine.health.probe import HealthProbe
from relight.engine.health.readiness import Phase, Readiness


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One line of an answer; `fault` is None when it is well."""

    name: str
    fault: str | None = None


def live(probe: HealthProbe) -> list[Answer]:
    """That this is answered shows that the loop turns; a vital task that ended by itself calls for a restart."""
    return [
        Answer(name="loop"),
        *(Answer(name=name, fault="it ended by itself: restart this process") for name in _dying(probe)),
    ]


def started(readiness: Readiness) -> list[Answer]:
    return [Answer(name="started", fault=None if readiness.started else readiness.reason)]


def ready(probe: HealthProbe, readiness: Readiness) -> list[Answer]:
    """Whether requests should be sent to this process; of its servers /health tells.

    All replicas share their servers: were they all taken out of service together, nobody would be left to answer what
    can be answered without the one that is away, nor to say which one that is.
    """
    return [
        Answer(name="phase", fault=None if readiness.phase is Phase.READY else readiness.reason),
        *(Answer(name=name, fault="it ended by itself") for name in _dying(probe)),
    ]


def _dying(probe: HealthProbe) -> list[str]:
    stopping = probe.readiness is not None and probe.readiness.phase is Phase.DRAINING
    return [] if stopping else probe.vital.dead()
