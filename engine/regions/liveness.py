"""Who is alive, as this process knows: from its own hearing, and from what the fleet ruled."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from enum import StrEnum

from relight.engine.policies.isolation import DomainState, State
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.heard import Heard
from relight.engine.regions.heartbeats import WORKER, Heartbeat
from relight.engine.regions.isolations import Isolations
from relight.events.faults import DomainType

LOOK_EVERY_S = 0.25

log = logging.getLogger(__name__)


class Standing(StrEnum):
    """`UNKNOWN`: never heard here, and nothing ruled. `LEFT`: it said that it stops. `SUSPECTED`: missed here or by a
    quorum, or only just let in again; nothing new is given to it. `ISOLATED`: ruled, so what it held goes to others."""

    ALIVE = "alive"
    SUSPECTED = "suspected"
    ISOLATED = "isolated"
    LEFT = "left"
    UNKNOWN = "unknown"


Changed = Callable[[DomainType, str, Standing], None]


class Liveness:
    """Runs in the recorder's own loop; answers may be read from any thread. `regions` are those of the topology."""

    def __init__(self, recorder: Recorder, heard: Heard, isolations: Isolations, regions: Iterable[str]) -> None:
        self._recorder = recorder
        self._heard = heard
        self._isolations = isolations
        self._regions = tuple(regions)
        self._told: dict[tuple[DomainType, str], Standing] = {}
        self.changed: list[Changed] = []
        """Called in the recorder's loop with whose standing changed, and to what; has to be quick."""
        isolations.on_change(self._ruled)

    @property
    def failure(self) -> str | None:
        return self._heard.failure or self._isolations.failure

    def region(self, name: str) -> Standing:
        ruled = _ruled(self._isolations.of(DomainType.REGION, name))
        if ruled is not None:
            return ruled
        if name == self._recorder.options.region:
            return Standing.ALIVE
        if self._heard.region_phi(name) >= self._heard.policy.threshold:
            return Standing.SUSPECTED
        return Standing.ALIVE if self._heard.hears_region(name) else Standing.UNKNOWN

    def worker(self, id: str) -> Standing:
        """A worker of an isolated region is isolated with it."""
        last = self._heard.last(WORKER, id)
        ruled = _ruled(self._isolations.of(DomainType.ENGINE, id))
        if last is not None and self._isolations.of(DomainType.REGION, last.region).state is State.ISOLATED:
            ruled = Standing.ISOLATED
        if ruled is Standing.ISOLATED:
            return ruled
        if last is None:
            return ruled or Standing.UNKNOWN
        if last.leaving:
            return Standing.LEFT
        if ruled is not None or (self._heard.phi(WORKER, id) or 0) >= self._heard.policy.threshold:
            return Standing.SUSPECTED
        return Standing.ALIVE

    def workers(self, queue: str) -> list[Heartbeat]:
        """The last word of each worker that is alive and says that it works on this queue (field `queues`)."""
        return [
            beat
            for beat in self._heard.of(WORKER)
            if isinstance(queues := beat.fields.get("queues"), list)
            and queue in queues
            and self.worker(beat.id) is Standing.ALIVE
        ]

    async def run(self) -> None:
        """For ever: silence makes no noise, so it is looked for."""
        while True:
            for region in self._regions:
                self._look(DomainType.REGION, region)
            for beat in self._heard.of(WORKER):
                self._look(DomainType.ENGINE, beat.id)
            for key in [
                key for key in self._told if key[0] is DomainType.ENGINE and not self._heard.last(WORKER, key[1])
            ]:
                del self._told[key]
            await asyncio.sleep(LOOK_EVERY_S)

    def _ruled(self, state: DomainState) -> None:
        if state.domain_type is DomainType.REGION or state.domain_type is DomainType.ENGINE:
            self._look(state.domain_type, state.domain_identifier)

    def _look(self, kind: DomainType, name: str) -> None:
        standing = self.region(name) if kind is DomainType.REGION else self.worker(name)
        before, self._told[kind, name] = self._told.get((kind, name)), standing
        if before is standing:
            return
        for callback in self.changed:
            try:
                callback(kind, name, standing)
            except Exception:  # one listener's edge: the others have to hear of it
                log.exception("told that %s %s is %s", kind, name, standing, extra={"action": "liveness_callback"})


def _ruled(state: DomainState) -> Standing | None:
    match state.state:
        case State.ISOLATED:
            return Standing.ISOLATED
        case State.DETECTED | State.RECOVERING:
            return Standing.SUSPECTED
        case State.HEALTHY:
            return None
