"""How recording and guarding go in one process, for whoever is paged."""

from dataclasses import dataclass

from relight.engine.guard.breakers.breakers import MAX_MODELS, MAX_TOOLS, OTHER, Breakers, BreakersHealth
from relight.engine.guard.health import GuardHealth, Guarding, JournalHealth
from relight.engine.recorder.options import RecorderHealth
from relight.engine.recorder.recorder import Recorder


@dataclass(frozen=True, kw_only=True)
class ProcessHealth:
    """Of one process only; the fleet's breakers stand in the tables, `breakers.open_now`."""

    recorder: RecorderHealth
    breakers: BreakersHealth
    guards: GuardHealth
    journal: JournalHealth

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong now or was lost, a sentence each; nothing where all is well."""
        return (
            *_of_recorder(self.recorder),
            *_of_breakers(self.breakers),
            *self.guards.warnings,
            *self.journal.warnings,
        )


def process_health(recorder: Recorder) -> ProcessHealth:
    """Raises `RecorderError` where the recorder never ran."""
    guarding = recorder.beside(Guarding, Guarding)
    return ProcessHealth(
        recorder=recorder.health(),
        breakers=Breakers.beside(recorder).health(),
        guards=GuardHealth.of_all(guard.health() for guard in list(guarding.guards)),
        journal=JournalHealth.of_all(journal.health() for journal in list(guarding.journals)),
    )


def _of_recorder(health: RecorderHealth) -> list[str]:
    said = []
    if health.alarm is not None:
        said.append(f"recorder {health.publisher}: {health.alarm}")
    if health.spool_fault is not None:
        said.append(f"events are held in memory only: {health.spool_fault}")
    if health.failure is not None:
        said.append(f"{health.exposed_events} events wait in the spool: {health.failure}")
    if health.refused_events:
        said.append(f"{health.refused_events} events were refused and are lost: see the log for why")
    if health.refused_contents:
        said.append(f"{health.refused_contents} contents are not kept for want of room")
    return said


def _of_breakers(health: BreakersHealth) -> list[str]:
    said = []
    for breaker in health.breakers:
        until = "" if breaker.until is None else f" until {breaker.until:%H:%M:%S}Z"
        state = str(breaker.state).replace("_", "-")
        whose = "the fleet's ruling" if breaker.fleet else "this process's own"
        said.append(
            f"breaker {breaker.name} is {state}{until}, {whose}: {breaker.reason} "
            f"({breaker.refused_calls} calls refused)"
        )
    if health.failure is not None:
        said.append(f"breakers follow no ruling of the fleet: {health.failure}")
    if health.shared:
        said.append(
            f"{health.shared} times a breaker was asked for beyond {MAX_MODELS} models or {MAX_TOOLS} other names: "
            f"such share one called {OTHER}; does somebody make names up?"
        )
    if health.unrecorded:
        said.append(f"{health.unrecorded} votes of breakers are not recorded")
    return said
