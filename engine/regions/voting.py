"""What one region's service says of others' heartbeats: it suspects, says so again, and takes it back."""

import logging
from dataclasses import dataclass
from datetime import datetime

from relight.engine import scope
from relight.engine.errors import RelightError
from relight.engine.policies.isolation import DomainState, IsolationPolicy, State
from relight.engine.policies.phi_accrual import phi
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.heard import Heard, Sender
from relight.engine.regions.heartbeats import WORKER
from relight.engine.regions.isolations import Isolations
from relight.events.envelope import PLATFORM
from relight.events.faults import DomainType, FaultSuspected, FaultTrusted

REPEAT_US = 2_000_000
"""For so long what was said may be on its way before it is said again."""
AGENT_WAIT_US = 1_000_000
"""For so long an agent is not suspected yet: its whole region may turn out to be gone, which says it all at once."""
AGENTS_EVERY_US = 250_000
UNSUSPICIOUS_US = 1_000_000
"""Of agents that were heard so lately nothing is computed."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Stance:
    """What was said of a domain last, by this start of the service; times in microseconds of the listening clock."""

    suspects: bool
    since: datetime
    said_us: int


class Voting:
    """In the recorder's own loop. Who hears nobody of another region is cut off himself, and accuses nobody."""

    def __init__(
        self, recorder: Recorder, heard: Heard, isolations: Isolations, policy: IsolationPolicy, *, observer: str
    ) -> None:
        self._recorder = recorder
        self._heard = heard
        self._isolations = isolations
        self._policy = policy
        self._observer = observer
        self._region = recorder.options.region
        self._stances: dict[tuple[DomainType, str], Stance] = {}
        self._missed_us: dict[tuple[DomainType, str], tuple[int, int]] = {}
        """Since when and until when a domain was missed."""
        self._hears_since_us: int | None = None
        self._agents_us = 0
        self._settle_us = round(policy.settle_s * 1_000_000)
        self._repeat_us = round(policy.vote_s / 3 * 1_000_000)
        self.votes = 0

    @property
    def cut_off(self) -> bool:
        """Whether it says nothing, because it is itself that nobody reaches."""
        return self._hears_since_us is None

    def look(self) -> None:
        """Votes on all that there is to vote on."""
        now_us = self._heard.listened_us()
        if not self._heard.listening or not self._heard.hears_others():
            self._hears_since_us = None
            return
        if self._hears_since_us is None:
            self._hears_since_us = now_us
        if now_us - self._hears_since_us < self._settle_us:
            return  # not all are heard again at once
        missed = set()
        for region in self._policy.regions:
            if region != self._region:
                found = self._heard.region_phi(region)
                if found >= self._heard.policy.threshold:
                    missed.add(region)
                silent_ms, hears = self._heard.region_silent_ms(region), self._heard.hears_now(region)
                self._judge(DomainType.REGION, region, found, silent_ms, now_us, hears=hears)
        if now_us - self._agents_us < AGENTS_EVERY_US:
            return
        self._agents_us = now_us
        for sender in self._heard.senders(WORKER):
            if not sender.last.leaving and sender.last.region not in missed:
                self._judge_agent(sender, now_us)
        if len(self._stances) + len(self._missed_us) > 1_000:
            self._forget()

    def _judge_agent(self, sender: Sender, now_us: int) -> None:
        key, silent_us = (DomainType.ENGINE, sender.last.id), now_us - sender.heard_us
        if silent_us < UNSUSPICIOUS_US and key not in self._missed_us:
            state = self._isolations.of(*key)
            if state.state is State.HEALTHY and not state.votes:
                return
        found = phi(sender.arrivals, now_us, self._heard.policy)
        self._judge(*key, found, silent_us // 1_000, now_us, wait_us=AGENT_WAIT_US)

    def _judge(
        self,
        kind: DomainType,
        name: str,
        found: float,
        silent_ms: int,
        now_us: int,
        *,
        hears: bool = True,
        wait_us: int = 0,
    ) -> None:
        key, state = (kind, name), self._isolations.of(kind, name)
        stance = self._stances.get(key)
        if found >= self._heard.policy.threshold:
            since_us = self._missed_us[key][0] if key in self._missed_us else now_us
            self._missed_us[key] = (since_us, now_us)
            if now_us - since_us >= wait_us and self._suspicion_is_news(stance, state, now_us):
                self._say(key, True, found, silent_ms, now_us)
            return
        _, missed_us = self._missed_us.get(key, (0, now_us - self._settle_us))
        if not hears or now_us - missed_us < self._settle_us:
            return  # one that was never heard, or said that it stops, is given time, but no trust
        self._missed_us.pop(key, None)
        if self._trust_is_news(stance, state, now_us):
            self._say(key, False, found, silent_ms, now_us)

    def _suspicion_is_news(self, stance: Stance | None, state: DomainState, now_us: int) -> bool:
        if stance is None or not stance.suspects:
            return True
        return state.state is not State.ISOLATED and now_us - stance.said_us >= self._repeat_us

    def _trust_is_news(self, stance: Stance | None, state: DomainState, now_us: int) -> bool:
        if stance is not None and stance.suspects:
            return True
        own = state.votes.get(self._observer)
        if state.state in (State.ISOLATED, State.RECOVERING):
            told = own is not None and not own.suspects and own.id > state.ruling_id
            return stance is None or not told or now_us - stance.said_us >= self._repeat_us
        return stance is None and own is not None and own.suspects  # of an earlier start of this service

    def _say(self, key: tuple[DomainType, str], suspects: bool, found: float, silent_ms: int, now_us: int) -> None:
        kind, name = key
        before, now = self._stances.get(key), self._recorder.clock.now()
        if before is not None and before.suspects == suspects:
            if now_us - before.said_us < REPEAT_US:
                return
            now = before.since
        vote = FaultSuspected if suspects else FaultTrusted
        said = vote(
            domain_type=kind,
            domain_identifier=name,
            observer=self._observer,
            observer_region=self._region,
            phi=round(found, 3),
            silent_ms=silent_ms,
            since=now,
        )
        self._stances[key] = Stance(suspects, now, now_us)
        try:
            with scope.entered(tenant=PLATFORM):
                self._recorder.record(said)
        except RelightError as error:
            log.warning("a vote on %s is not recorded: %s", said.domain, error, extra={"action": "vote_failed"})
        self.votes += 1
        log.info("%s: phi %.1f", said.TYPE, found, extra={"action": "voted", "domain": said.domain})

    def _forget(self) -> None:
        """Agents of which nothing is heard any more."""
        for kept in (self._stances, self._missed_us):
            for key in list(kept):
                if key[0] is DomainType.ENGINE and self._heard.last(WORKER, key[1]) is None:
                    kept.pop(key, None)
