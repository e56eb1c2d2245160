"""What is known of a fleet's regions from outside its rulings: their heartbeats, and votes and rulings on them."""

from collections.abc import Iterable
from datetime import datetime

from relight.engine.clock import Clock
from relight.engine.policies.failover_commands import Life, Sight, Sights
from relight.engine.policies.isolation import IsolationPolicy
from relight.engine.regions.heard import Heard
from relight.engine.regions.heartbeats import SERVICE, Heartbeat
from relight.engine.regions.isolations import Isolations
from relight.engine.regions.liveness import Liveness, Standing
from relight.events.faults import DomainType

LIVES = {
    Standing.ALIVE: Life.ALIVE,
    Standing.SUSPECTED: Life.SUSPECTED,
    Standing.ISOLATED: Life.ISOLATED,
    Standing.LEFT: Life.UNKNOWN,
    Standing.UNKNOWN: Life.UNKNOWN,
}


class Seeing:
    """Calling it gives what is known now; for any thread."""

    def __init__(
        self, clock: Clock, heard: Heard, isolations: Isolations, liveness: Liveness, regions: Iterable[str]
    ) -> None:
        self._clock = clock
        self._heard = heard
        self._isolations = isolations
        self._liveness = liveness
        self._regions = tuple(regions)
        self._policy = IsolationPolicy.of(self._regions)

    def __call__(self) -> Sights:
        now = self._clock.now()
        return {name: self._sight(name, now) for name in self._regions}

    def _sight(self, name: str, now: datetime) -> Sight:
        ruled = self._isolations.of(DomainType.REGION, name)
        votes = ruled.suspecting(now, self._policy)
        last = max(self._heard.of(SERVICE, name), key=lambda beat: beat.sent_at_us, default=None)
        return Sight(
            life=LIVES[self._liveness.region(name)],
            suspected_by=len({vote.region for vote in votes}),
            since=ruled.detected_at,
            caught_up=_said(last, "caught_up") is True and _said(last, "may_return") is not False,
            ready_for=_text(last, "ready_for"),
            drained_for=_text(last, "drained_for"),
        )


def _said(beat: Heartbeat | None, field: str) -> object:
    return None if beat is None else beat.fields.get(field)


def _text(beat: Heartbeat | None, field: str) -> str | None:
    said = _said(beat, field)
    return said if isinstance(said, str) else None
