"""Hears all heartbeats of the fleet, and says how silent each sender is: by its sequence and the receiver's clock."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import ValidationError

from relight.engine.errors import RelightError, Unreachable
from relight.engine.log.reader import TRANSIENT
from relight.engine.log.topology import REQUEST_TIMEOUT_S
from relight.engine.policies.phi_accrual import Arrivals, PhiPolicy, heard, phi
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.heartbeats import HEARTBEATS, SERVICE, Heartbeat, heartbeat_subject
from relight.engine.regions.listening import ListeningClock

LOOK_EVERY_S = 0.1
RETRY_S = 0.2
FIRST_US = 30_000_000
"""How long a region that was never heard may take until it is missed: a fleet is not started at once."""
LEAVING_US = 15_000_000
"""How long a service that said that it stops may take to come back."""
SUPERSEDED_US = 1_000_000
"""After so long without a word of the latest start of a sender, an earlier one is believed again."""
FORGET_US = 3_600_000_000
MAX_KINDS = 16
MAX_SENDERS = 20_000
"""Of a kind."""
MAX_RETIRED = 8

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """One sender as it was heard last; `heard_us` is on the listening clock, `lost` counts numbers that never came."""

    last: Heartbeat
    arrivals: Arrivals
    heard_us: int
    lost: int = 0
    retired: tuple[int, ...] = ()
    """Generations before this one, the latest last."""


class Heard:
    """Runs in the recorder's own loop; an id is unique within its kind. Answers may be read from any thread.

    Silence counts while this process listens: not while it was stopped, nor while it was not connected. `clock_us` is
    what a test overrides.
    """

    def __init__(
        self, recorder: Recorder, *, policy: PhiPolicy | None = None, clock_us: Callable[[], int] | None = None
    ) -> None:
        self._recorder = recorder
        self.policy = policy or PhiPolicy()
        self._now_us = clock_us or _monotonic_us
        self._clock: ListeningClock | None = None
        self._senders: dict[str, dict[str, Sender]] = {}
        self._callbacks: list[Callable[[Heartbeat], None]] = []
        self.unreadable = 0
        self.evicted = 0
        self.superseded = 0
        """Heartbeats of a start of a sender that was followed by another one."""
        self.failure: str | None = "not listening yet"

    def on_heartbeat(self, callback: Callable[[Heartbeat], None]) -> None:
        """Called in the recorder's loop with each that counts; has to be quick."""
        self._callbacks.append(callback)

    def last(self, kind: str, id: str) -> Heartbeat | None:
        """The latest of this sender, however long ago."""
        sender = self.sender(kind, id)
        return None if sender is None else sender.last

    def sender(self, kind: str, id: str) -> Sender | None:
        return self._of(kind).get(id)

    def of(self, kind: str, region: str | None = None) -> list[Heartbeat]:
        """The latest of every sender of this kind, those that are gone included; the longest silent first."""
        return [sender.last for sender in self.senders(kind) if region in (None, sender.last.region)]

    def senders(self, kind: str) -> list[Sender]:
        """As `of`, with when each was heard."""
        return list(self._of(kind).values())

    def phi(self, kind: str, id: str) -> float | None:
        """How sure it is that the sender is gone; None where it was never heard."""
        sender = self.sender(kind, id)
        return None if sender is None else phi(sender.arrivals, self.listened_us(), self.policy)

    def silent_ms(self, kind: str, id: str) -> int | None:
        sender = self.sender(kind, id)
        return None if sender is None else max(0, self.listened_us() - sender.heard_us) // 1_000

    def region_phi(self, region: str) -> float:
        """As `phi`, of the region's service that is heard best; one that was never heard is given time."""
        now_us = self.listened_us()
        services = self._services(region)
        if not services:
            return phi(Arrivals(last_us=FIRST_US), max(now_us, FIRST_US), self.policy)
        return min(phi(_missed_from(sender), now_us, self.policy) for sender in services)

    def hears_region(self, region: str) -> bool:
        """Whether a service of it was ever heard."""
        return bool(self._services(region))

    def hears_now(self, region: str) -> bool:
        """Whether a service of it is heard, and does not just stop."""
        now_us = self.listened_us()
        services = [sender for sender in self._services(region) if not sender.last.leaving]
        return any(phi(sender.arrivals, now_us, self.policy) < self.policy.threshold for sender in services)

    def region_silent_ms(self, region: str) -> int:
        latest_us = max((sender.heard_us for sender in self._services(region)), default=0)
        return max(0, self.listened_us() - latest_us) // 1_000

    def hears_others(self) -> bool:
        """Whether anybody of another region is heard now: who hears nobody is cut off himself, and knows nothing."""
        now_us, own = self.listened_us(), self._recorder.options.region
        return any(
            sender.last.region != own
            and not sender.last.leaving
            and phi(sender.arrivals, now_us, self.policy) < self.policy.threshold
            for kind in list(self._senders)
            for sender in reversed(self.senders(kind))
        )

    def listened_us(self) -> int:
        """The listening clock, which stands while nothing can be heard."""
        return 0 if self._clock is None else self._clock.at(self._now_us())

    @property
    def listening(self) -> bool:
        return self._clock is not None and self._clock.listening

    async def run(self) -> None:
        """For ever."""
        if self._clock is None:
            self._clock = ListeningClock(self._now_us())
        while True:
            try:
                await self._listen(await self._recorder.client(), self._clock)
            except (RelightError, *TRANSIENT) as error:
                self._interrupted(error)
            except Exception as error:  # a daemon's edge: nobody is suspected meanwhile, and health says why
                log.exception("heartbeats are not heard", extra={"action": "hearing_failed"})
                self._interrupted(error)
            await asyncio.sleep(RETRY_S)

    def _interrupted(self, error: Exception) -> None:
        said = str(error) or type(error).__name__
        if said != self.failure:
            log.info("heartbeats are not heard now: %s", said, extra={"action": "hearing_retry"})
        self.failure = said

    async def _listen(self, client: Client, clock: ListeningClock) -> None:
        subscription = await client.subscribe(f"{HEARTBEATS}.>", cb=self._on_message)
        try:
            await client.flush(timeout=REQUEST_TIMEOUT_S)  # type: ignore[arg-type]  # it waits so long: fractions will do
            while not client.is_closed:
                clock.listen(self._now_us(), client.is_connected)
                self.failure = None if clock.listening else "the connection to NATS is lost"
                self._forget(clock.at(self._now_us()))
                await asyncio.sleep(LOOK_EVERY_S)
            raise Unreachable("the connection to NATS was closed: another one is waited for")
        finally:
            clock.listen(self._now_us(), False)
            if client.is_connected:
                await subscription.unsubscribe()

    async def _on_message(self, message: Msg) -> None:
        try:
            beat = Heartbeat.model_validate_json(message.data)
        except ValidationError:
            self.unreadable += 1
            return
        known = beat.kind in self._senders or len(self._senders) < MAX_KINDS
        if message.subject != heartbeat_subject(beat.region, beat.kind, beat.id) or not known:
            self.unreadable += 1
            return
        self.take(beat)

    def take(self, beat: Heartbeat) -> None:
        """What a heartbeat that arrives now changes."""
        if self._clock is None:
            self._clock = ListeningClock(self._now_us())
        now_us, senders = self._clock.look(self._now_us()), self._senders.setdefault(beat.kind, {})
        before = senders.get(beat.id)
        after = _begun(beat, now_us) if before is None else _followed(before, beat, now_us, self.policy)
        if after is None:
            self.superseded += before is not None and before.last.generation != beat.generation
            return
        senders.pop(beat.id, None)
        senders[beat.id] = after  # whoever spoke last stands last
        if len(senders) > MAX_SENDERS:
            del senders[next(iter(senders))]
            self.evicted += 1
        for callback in self._callbacks:
            callback(beat)

    def _forget(self, now_us: int) -> None:
        """Regions are missed however long they are silent; who else was is gone."""
        for kind, senders in self._senders.items():
            while kind != SERVICE and senders:
                id, sender = next(iter(senders.items()))
                if now_us - sender.heard_us < FORGET_US:
                    break
                del senders[id]

    def _of(self, kind: str) -> dict[str, Sender]:
        return self._senders.get(kind) or {}

    def _services(self, region: str) -> list[Sender]:
        return [sender for sender in self.senders(SERVICE) if sender.last.region == region]


def _monotonic_us() -> int:
    return time.monotonic_ns() // 1_000


def _begun(beat: Heartbeat, now_us: int, retired: tuple[int, ...] = ()) -> Sender:
    return Sender(last=beat, arrivals=Arrivals(last_us=now_us), heard_us=now_us, retired=retired)


def _followed(before: Sender, beat: Heartbeat, now_us: int, policy: PhiPolicy) -> Sender | None:
    """The sender after this heartbeat; None where it tells nothing new."""
    if beat.generation != before.last.generation:
        if beat.generation in before.retired and now_us - before.heard_us < SUPERSEDED_US:
            return None
        retired = (*before.retired, before.last.generation)
        return _begun(beat, now_us, tuple(one for one in retired if one != beat.generation)[-MAX_RETIRED:])
    if beat.seq <= before.last.seq:
        return None
    return Sender(
        last=beat,
        arrivals=heard(before.arrivals, now_us, policy),
        heard_us=now_us,
        lost=before.lost + beat.seq - before.last.seq - 1,
        retired=before.retired,
    )


def _missed_from(sender: Sender) -> Arrivals:
    """One that stops on purpose is not missed before it should be back."""
    if not sender.last.leaving:
        return sender.arrivals
    return Arrivals(last_us=sender.arrivals.last_us + LEAVING_US)
