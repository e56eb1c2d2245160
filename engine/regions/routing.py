"""The routing table of a fleet as every process follows it: who takes traffic, who drains, who stands in for whom."""

import asyncio
import logging
from collections.abc import Callable

from relight.engine.errors import AckTimeout, RelightError
from relight.engine.log.following import Follower
from relight.engine.log.reader import TRANSIENT, Message
from relight.engine.policies.routing import RoutingState, moved, observe, standing, under_way
from relight.engine.recorder.recorder import Recorder
from relight.events.catalog import decode, decode_message
from relight.events.envelope import PLATFORM
from relight.events.errors import Reason, Undecodable
from relight.events.failover import FleetDeclared, Phase, Routing, StandIn
from relight.events.subjects import control_subject

RETRY_S = 0.5
LOOK_EVERY_S = 0.5
NOT_YET = "the routing was not read yet"

log = logging.getLogger(__name__)


class RoutingTable:
    """A part: `run` follows the fleet's rulings in the recorder's loop; all else is for any thread.

    Until it is known, and where the fleet is not declared, every region counts as switched on. When it is not heard of
    any more, the last known stays, and `failure` says why.
    """

    def __init__(self, recorder: Recorder, fleet: str) -> None:
        assert FleetDeclared.POLICY is not None
        self.fleet = fleet
        self.failure: str | None = NOT_YET
        """Why rulings do not arrive now."""
        self._recorder = recorder
        self._subject = control_subject(FleetDeclared.POLICY, PLATFORM, fleet)
        self._state = RoutingState(fleet=fleet)
        self._changed: list[Callable[[], None]] = []
        self._read = False
        self._ready: list[asyncio.Event] = []

    @property
    def state(self) -> RoutingState:
        return self._state

    @property
    def routing(self) -> Routing | None:
        """All of it; None while it is not known, or the fleet not declared."""
        return self._state.routing

    @property
    def rev(self) -> int:
        return self._state.rev

    @property
    def active(self) -> tuple[str, ...]:
        """Regions that take traffic, in the order in which clients are to turn to them."""
        return () if (routing := self.routing) is None else routing.active

    @property
    def draining(self) -> tuple[str, ...]:
        """Regions that take no new work and finish what they have."""
        routing = self.routing
        stands = () if routing is None else routing.standing
        return tuple(one.source_region for one in stands if one.phase is Phase.DRAINING)

    def is_active(self, region: str) -> bool:
        """Whether it takes new work; a region that is none of the fleet's always does."""
        routing = self.routing
        return routing is None or region in routing.active or all(region != known.name for known in routing.regions)

    def is_off(self, region: str) -> bool:
        """Whether nothing may be left there: it is switched off, and drains no more."""
        return not self.is_active(region) and region not in self.draining

    def moved(self, region: str) -> str:
        """Who takes this region's traffic: itself, or who stands in for it."""
        return region if (routing := self.routing) is None else moved(routing, region)

    def under_way(self) -> StandIn | None:
        """The failover that is begun and not completed."""
        return None if (routing := self.routing) is None else under_way(routing)

    def why_off(self, region: str) -> str:
        """A sentence for whoever is passed over."""
        routing = self.routing
        found = None if routing is None else standing(routing, region)
        since = "" if found is None else f" since {found.begun_at:%H:%M:%S}Z, failover {found.failover}"
        return f"region {region} is switched off{since}: {self.moved(region)} stands in"

    def on_change(self, callback: Callable[[], None]) -> None:
        """Called in the recorder's loop with every ruling, and as soon as it is known."""
        self._changed.append(callback)

    async def known(self, *, timeout_s: float | None = 30) -> "RoutingTable":
        """Waits, in the recorder's loop, until all that was ruled before is read. Raises `AckTimeout`."""
        if not self._read:
            ready = asyncio.Event()
            self._ready.append(ready)
            try:
                async with asyncio.timeout(timeout_s):
                    await ready.wait()
            except TimeoutError:
                raise AckTimeout(
                    f"the routing of fleet {self.fleet} was not read within {timeout_s} s: {self.failure}"
                ) from None
            finally:
                self._ready.remove(ready)
        return self

    async def run(self) -> None:
        """For ever: whenever something may have been missed, it is read again."""
        while True:
            try:
                await self._follow()
            except (RelightError, *TRANSIENT) as error:
                self._interrupted(error)
            except Exception as error:  # a daemon's edge: the last known routing stays
                log.exception(
                    "fleet %s: the routing cannot be followed", self.fleet, extra={"action": "routing_failed"}
                )
                self._interrupted(error)
            await asyncio.sleep(RETRY_S)

    def _interrupted(self, error: Exception) -> None:
        said = str(error) or type(error).__name__
        if said != self.failure:
            log.info(
                "fleet %s: the routing is not followed now: %s", self.fleet, said, extra={"action": "routing_retry"}
            )
        self.failure = said

    async def _follow(self) -> None:
        client, woken = await self._recorder.client(), asyncio.Event()
        async with Follower(client, [self._subject], since=None, arrived=woken.set) as follower:
            while True:
                woken.clear()
                while (message := follower.take()) is not None:
                    self._fold(message)
                if not follower.behind and self.failure is not None:
                    self.failure, first = None, not self._read
                    self._read = True
                    for ready in self._ready:
                        ready.set()
                    if first:
                        self._tell()
                try:
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await woken.wait()
                except TimeoutError:
                    continue

    def _fold(self, message: Message) -> None:
        try:
            event = decode_message(message.subject, message.body, message.timestamp_ms)
        except Undecodable as error:
            if error.reason is not Reason.CLOCK_AHEAD:
                log.error(
                    "fleet %s: ruling %d cannot be read (%s): the routing stays as it was; upgrade",
                    self.fleet,
                    message.seq,
                    error,
                    extra={"action": "unreadable_ruling"},
                )
                return
            event = decode(message.body)  # whoever rules next folds it, too: it is what the table says
        before, self._state = self._state, observe(self._state, event)
        if self._state.rev != before.rev and self._read:
            self._tell()

    def _tell(self) -> None:
        for callback in list(self._changed):
            try:
                callback()
            except Exception:  # somebody else's: the others are told all the same
                log.exception("fleet %s: who follows its routing failed", self.fleet, extra={"action": "told_failed"})
