"""Takes a fleet's failovers from step to step: begins those that a policy wants, forces, completes, takes back."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime

from pydantic import JsonValue

from relight.engine.errors import FailoverRefused, RelightError, Superseded
from relight.engine.log.reader import TRANSIENT
from relight.engine.policies.failover import blocked, decide
from relight.engine.policies.failover_commands import Command, Complete, Life, RuleResult, Sight, Sights
from relight.engine.policies.routing import RoutingState, standing, under_way
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.commands import FailoverCommands
from relight.engine.regions.routing import RoutingTable
from relight.engine.regions.turns import Turns
from relight.events.failover import Phase, StandIn
from relight.events.values import Content

LOOK_EVERY_S = 0.2
RETRY_S = 0.5
ASKED_EVERY_S = 1.0
"""How often a region that is switched off looks whether it has caught up."""
RECEIPT_S = 20.0
"""So long a completion waits for its receipt."""

Asked = Callable[[StandIn], Awaitable[bool]]

log = logging.getLogger(__name__)


async def at_once(one: StandIn) -> bool:
    """Where nobody has to be waited for."""
    return True


async def no_receipt(one: StandIn) -> Content | None:
    """Where nobody makes receipts."""
    return None


async def stays(one: StandIn) -> None:
    """Where nobody leads the stream from a region."""


class FailingOver:
    """A part of a region's service; `run` in the recorder's loop.

    `ready`: whether this region, as a failover's target, has caught up with what the log held as it was switched.
    `drained`: whether this region, as its source, has nothing in hand any more. `may_return`: whether this region's own
    spools are drained too, so that it may have its traffic back. `leave`: takes the stream's leadership out of the
    source. `fields` go into the heartbeats of the region's service, by which others hear of it.
    """

    def __init__(
        self,
        recorder: Recorder,
        table: RoutingTable,
        *,
        region: str,
        sights: Callable[[], Sights],
        ready: Asked = at_once,
        drained: Asked = at_once,
        may_return: Asked = at_once,
        make_receipt: Callable[[StandIn], Awaitable[Content | None]] = no_receipt,
        leave: Callable[[StandIn], Awaitable[None]] = stays,
    ) -> None:
        self.failure: str | None = None
        """Why it does not rule now."""
        self.blocked: RuleResult | None = None
        """The rule for which what is due cannot be done: an operator has to see to it."""
        self.commands = FailoverCommands(recorder, table.fleet, sights=self._seen)
        self._recorder = recorder
        self._table = table
        self._region = region
        self._sights = sights
        self._asks: dict[str, Asked] = {"ready": ready, "drained": drained, "may_return": may_return}
        self._make_receipt = make_receipt
        self._leave = leave
        self._turns = Turns(table, region)
        self._ready_for: str | None = None
        self._drained_for: str | None = None
        self._may_return: bool | None = None
        """Null where it has its traffic."""
        self._asked_at = 0.0
        self._left: tuple[str, Phase] | None = None
        self._receipts: dict[str, Content | None] = {}
        self._woken = asyncio.Event()
        table.on_change(self.wake)

    def fields(self) -> dict[str, JsonValue]:
        """What the region's service says of itself in its heartbeats."""
        return {
            "ready_for": self._ready_for,
            "drained_for": self._drained_for,
            "may_return": self._may_return,
            "routing_rev": self._table.rev,
        }

    def wake(self) -> None:
        """Something may be due: in the recorder's loop, as when the standing of a region has changed."""
        self._woken.set()

    async def run(self) -> None:
        """For ever; what fails is tried again."""
        self._woken = asyncio.Event()
        await self._table.known(timeout_s=None)
        while True:
            self._woken.clear()
            try:
                await self._look()
                self.failure = None
            except (RelightError, *TRANSIENT) as error:
                self.failure = str(error) or type(error).__name__
                await asyncio.sleep(RETRY_S)
            except Exception as error:  # a daemon's edge: others rule, and health says why
                log.exception("failovers cannot be ruled here", extra={"action": "failing_over_failed"})
                self.failure = str(error) or type(error).__name__
                await asyncio.sleep(RETRY_S)
            try:
                async with asyncio.timeout(self._turns.pause_s(LOOK_EVERY_S)):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def _look(self) -> None:
        await self._ask_here()
        state = self._table.state
        if state.routing is None:
            return
        due = next(iter(decide(state, self._recorder.clock.now(), self._seen())), None)
        if self._turns.is_ours(None if due is None else (state.rev, type(due))):
            assert due is not None
            await self._rule(due)
        if due is None:
            self._see_blocked(blocked(state, self._recorder.clock.now(), self._seen()))
        await self._take_the_lead_away()

    async def _ask_here(self) -> None:
        """How this region is, as far as its part in a failover asks for it."""
        routing = self._table.routing
        if routing is None:
            return
        going = under_way(routing)
        if going is not None and going.target_region == self._region and going.phase is Phase.SWITCHING:
            if self._ready_for != going.failover and await self._asks["ready"](going):
                self._ready_for = going.failover
        elif going is not None and going.source_region == self._region and going.phase is Phase.DRAINING:
            if self._drained_for != going.failover and await self._asks["drained"](going):
                self._drained_for = going.failover
        elif (own := standing(routing, self._region)) is not None:
            now = asyncio.get_running_loop().time()
            if now >= self._asked_at + ASKED_EVERY_S:
                self._asked_at = now
                self._may_return = await self._asks["may_return"](own)
        else:
            self._may_return = None

    async def _rule(self, due: Command) -> None:
        if isinstance(due, Complete):
            due = replace(due, receipt=await self._receipt(due.failover))

        def still_due(state: RoutingState, now: datetime, sights: Sights) -> Command | None:
            found = next(iter(decide(state, now, sights)), None)
            if isinstance(found, Complete) and isinstance(due, Complete) and found.failover == due.failover:
                return due
            return found if not isinstance(found, Complete) else None

        try:
            ruled = await self.commands.rule_if_due(still_due)
            self.blocked = None
            if ruled is not None and ruled.tail.event is not None:
                log.info("fleet %s: %s", self._table.fleet, ruled.tail.event.type, extra={"action": "ruled"})
        except (FailoverRefused, Superseded) as error:  # what was due is not any more
            log.debug("%s", error, extra={"action": "ruling_superseded"})
        finally:
            self._turns.again()

    def _see_blocked(self, found: RuleResult | None) -> None:
        if found is not None and found != self.blocked:
            log.warning(
                "fleet %s: a failover is due, and is not done (%s): %s",
                self._table.fleet,
                found.rule.value,
                found.detail,
                extra={"action": "failover_blocked"},
            )
        self.blocked = found

    async def _receipt(self, failover: str) -> Content | None:
        """Made once; without one where it takes too long or cannot be made: the traffic must not wait for it."""
        going = self._table.under_way()
        if going is None or going.failover != failover:
            return None
        if failover not in self._receipts:
            self._receipts[failover] = await self._made(going)
        return self._receipts[failover]

    async def _made(self, going: StandIn) -> Content | None:
        """Tried again while there is time: the stream may have no leader for a moment, just when one is lost."""
        failed: Exception | None = None
        try:
            async with asyncio.timeout(RECEIPT_S):
                while True:
                    try:
                        return await self._make_receipt(going)
                    except (RelightError, *TRANSIENT) as error:
                        failed = error
                    await asyncio.sleep(RETRY_S)
        except TimeoutError:
            why = failed or f"it was not made within {RECEIPT_S:.0f} s"
            log.error("failover %s completes without receipt: %s", going.failover, why, extra={"action": "no_receipt"})
            return None

    async def _take_the_lead_away(self) -> None:
        """Once for each phase, by whoever rules at once."""
        going = self._table.under_way()
        if going is None or self._turns.rank != 0 or self._left == (going.failover, going.phase):
            return
        await self._leave(going)
        self._left = (going.failover, going.phase)

    def _seen(self) -> Sights:
        """What is known of all regions, this one's own word included before anybody hears it."""
        found = dict(self._sights())
        here = found.get(self._region, Sight())
        life = Life.ALIVE if here.life is Life.UNKNOWN else here.life
        found[self._region] = replace(
            here,
            life=life,
            ready_for=self._ready_for,
            drained_for=self._drained_for,
            caught_up=here.caught_up and self._may_return is not False,
        )
        return found
