"""What /livez, /readyz and /startupz answer: cheap, and never by one slow look alone."""

import time
from dataclasses import dataclass

from relight.engine.health.limits import NOT_READY_AFTER_S
from relight.engine.health.probe import HealthProbe
from relight.engine.health.readiness import Phase, Readiness

FRESH_S = 0.3
"""So long a fresh look is waited for; what was known before has to do otherwise."""


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


async def ready(probe: HealthProbe, readiness: Readiness) -> list[Answer]:
    """Whether requests can be served here; asks the servers anew, but waits for them hardly at all."""
    answers = [Answer(name="phase", fault=None if readiness.phase is Phase.READY else readiness.reason)]
    answers += [Answer(name=name, fault="it ended by itself") for name in _dying(probe)]
    await probe.refresh(within_s=FRESH_S)
    for server in ("postgres", "nats"):
        since = probe.failing_since.get(server)
        failing_s = 0.0 if since is None else time.monotonic() - since
        fault = f"away for {failing_s:.0f} s" if failing_s > NOT_READY_AFTER_S else None
        answers.append(Answer(name=server, fault=fault if probe.latest else "not yet asked"))
    pending = ", ".join(probe.pending_migrations[:3])
    answers.append(Answer(name="migrations", fault=f"{pending} to be applied" if pending else None))
    return answers


def _dying(probe: HealthProbe) -> list[str]:
    stopping = probe.readiness is not None and probe.readiness.phase is Phase.DRAINING
    return [] if stopping else probe.vital.dead()
