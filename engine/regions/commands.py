"""Rulings on a fleet's routing: each is checked against the very state that it is appended to, or not made."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from relight.engine import scope
from relight.engine.clock import Clock
from relight.engine.errors import FailoverRefused, Superseded
from relight.engine.log.control import ControlLog, Tail
from relight.engine.policies.failover import check, choose, observe, ruling, says_nothing_new
from relight.engine.policies.failover_commands import (
    Abort,
    Back,
    Command,
    Declare,
    Restore,
    Rule,
    RuleResult,
    Sights,
    Start,
    Suspend,
)
from relight.engine.policies.routing import RoutingState, under_way
from relight.engine.recorder.recorder import Recorder
from relight.events.envelope import PLATFORM
from relight.events.failover import FailoverRuling, FleetDeclared, Manner, RoutingRuling

POLICY = "failover-1"
MAX_TRIES = 64
"""Of one command against others that come first; each of them is a ruling, and there are not many."""
PAUSE_S = 0.02
"""At most, times the tries so far, before the next one: whoever came first is not met again at once."""
NOBODY: Final[Sights] = MappingProxyType({})

T = TypeVar("T")
Decider = Callable[[RoutingState, datetime, Sights], Command | None]
"""Which command, if any, the state at the tail asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruled:
    """What came of a command. `made` is False where the state said so already.

    `superseded`: how often another ruling came first, after which all rules were checked again.
    """

    state: RoutingState
    tail: Tail
    command: Command
    results: tuple[RuleResult, ...]
    superseded: int = 0
    made: bool = True

    @property
    def failover(self) -> str | None:
        """The failover, or the override, that it is about."""
        data = None if self.tail.event is None else self.tail.event.data
        return getattr(data, "failover", None) or getattr(data, "override", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """Which rules a command would keep now."""

    state: RoutingState
    command: Command
    results: tuple[RuleResult, ...]

    @property
    def allowed(self) -> bool:
        return all(result.passes for result in self.results)


class FailoverCommands:
    """On one fleet; for any loop. `sights` says what is known of its regions now."""

    def __init__(self, recorder: Recorder, fleet: str, *, sights: Callable[[], Sights] = lambda: NOBODY) -> None:
        self._recorder = recorder
        self._fleet = fleet
        self._sights = sights

    async def state(self) -> RoutingState:
        """As the last ruling leaves it."""
        state, _ = await self._in_log(partial(_state, fleet=self._fleet))
        return state

    async def plan(
        self, source: str, *, to: str | None = None, manner: Manner = Manner.GRACEFUL, ordered_by: str, reason: str
    ) -> Checked:
        """What `start` would be checked for now; nothing is ruled."""
        state, now, sights = await self.state(), self._recorder.clock.now(), self._sights()
        command = starting(source, to, manner, ordered_by, reason)(state, now, sights)
        return Checked(state=state, command=command, results=check(state, command, now, sights))

    async def start(
        self, source: str, *, to: str | None = None, manner: Manner = Manner.GRACEFUL, ordered_by: str, reason: str
    ) -> Ruled:
        """Begins a failover, to the first fallback that breaks no rule where none is named. Raises as `rule` does."""
        return await self.rule(starting(source, to, manner, ordered_by, reason))

    async def back(self, source: str, *, ordered_by: str, reason: str) -> Ruled:
        """Gives a region its traffic back. Raises as `rule` does."""
        return await self.rule(Back(source=source, ordered_by=ordered_by, reason=reason))

    async def abort(self, failover: str | None = None, *, ordered_by: str, reason: str) -> Ruled:
        """Takes back the failover that is under way. Raises as `rule` does."""

        def aborting(state: RoutingState, now: datetime, sights: Sights) -> Command:
            going = None if state.routing is None else under_way(state.routing)
            named = failover or (going.failover if going is not None else "no failover")
            return Abort(failover=named, ordered_by=ordered_by, reason=reason)

        return await self.rule(aborting)

    async def override(self, *rules: str, for_s: float, ordered_by: str, reason: str) -> Ruled:
        """Suspends rules for so long. Raises as `rule` does."""

        def suspending(state: RoutingState, now: datetime, sights: Sights) -> Command:
            expires_at = now + timedelta(seconds=for_s)
            return Suspend(rules=rules, expires_at=expires_at, ordered_by=ordered_by, reason=reason)

        return await self.rule(suspending)

    async def restore(self, override: str, *, ordered_by: str, reason: str) -> Ruled:
        """Takes an override back before it ends. Raises as `rule` does."""
        return await self.rule(Restore(override=override, ordered_by=ordered_by, reason=reason))

    async def declare(self, command: Declare) -> Ruled:
        """What the fleet is to be; declaring the same again rules nothing. Raises as `rule` does."""
        return await self.rule(command)

    async def rule(self, command: Command | Decider) -> Ruled:
        """Raises `FailoverRefused` with the first rule that it would break, `Superseded` where others always came
        first, and what `ControlLog` raises."""
        ruled = await self.rule_if_due(command)
        if ruled is None:
            raise FailoverRefused(Rule.STANDS, "nothing is due")
        return ruled

    async def rule_if_due(self, command: Command | Decider) -> Ruled | None:
        """As `rule`; None where the decider asks for nothing."""
        decider = command if callable(command) else lambda *_: command
        return await self._in_log(
            partial(_rule, fleet=self._fleet, clock=self._recorder.clock, decider=decider, sights=self._sights)
        )

    async def _in_log(self, work: Callable[[ControlLog], Awaitable[T]]) -> T:
        asking: Coroutine[Any, Any, T] = self._recorder.with_control(work)
        return await asyncio.wrap_future(self._recorder.in_loop(asking))


def starting(
    source: str, to: str | None, manner: Manner, ordered_by: str, reason: str
) -> Callable[[RoutingState, datetime, Sights], Start]:
    """To `to`, else to the first fallback of the source that breaks no rule, else to any other region."""

    def decided(state: RoutingState, now: datetime, sights: Sights) -> Start:
        command = Start(source=source, target=to or source, manner=manner, ordered_by=ordered_by, reason=reason)
        if to is not None or state.routing is None:
            return command
        policies = [policy for policy in state.routing.policies if policy.source_region == source]
        named = tuple(dict.fromkeys(name for policy in policies for name in policy.fallback_regions))
        others = tuple(name for name in state.routing.active if name != source)
        return choose(state, command, named or others, now, sights)

    return decided


async def _state(control: ControlLog, *, fleet: str) -> tuple[RoutingState, Tail]:
    tail = await control.tail(FleetDeclared, tenant=PLATFORM, entity=fleet)
    state = RoutingState(fleet=fleet)
    return (state if tail.event is None else observe(state, tail.event)), tail


async def _rule(
    control: ControlLog, *, fleet: str, clock: Clock, decider: Decider, sights: Callable[[], Sights]
) -> Ruled | None:
    superseded: Superseded | None = None
    for tries in range(MAX_TRIES):
        if tries:
            await asyncio.sleep(random.uniform(0, PAUSE_S * tries))
        state, tail = await _state(control, fleet=fleet)
        now, seen = clock.now(), sights()
        command = decider(state, now, seen)
        if command is None:
            return None
        results = check(state, command, now, seen)
        for result in results:
            if not result.passes:
                raise FailoverRefused(result.rule, result.detail)
        if tail.event is not None:
            clock.observe(tail.event.id)
        id = clock.next_id()
        try:
            if isinstance(command, Declare) and says_nothing_new(state, command):
                return Ruled(state=state, tail=tail, command=command, results=results, superseded=tries, made=False)
            event = ruling(state, command, now, id, results)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(str(part) for part in fault["loc"])
            raise FailoverRefused(Rule.SAYABLE, f"{where}: {fault['msg']}: correct it") from None
        try:
            tail = await _append(control, event, after=tail, decided_at=state.moment(now), id=id)
        except Superseded as error:
            superseded = error
            continue
        assert tail.event is not None
        return Ruled(state=observe(state, tail.event), tail=tail, command=command, results=results, superseded=tries)
    raise Superseded(
        f"{MAX_TRIES} times another ruling on fleet {fleet} came first: see `relight failover status`, and try again"
    ) from superseded


async def _append(control: ControlLog, event: RoutingRuling, *, after: Tail, decided_at: datetime, id: str) -> Tail:
    here, cause = scope.current(), after.event.id if after.event is not None else None
    failover = event.failover if isinstance(event, FailoverRuling) else None
    with scope.entered(tenant=PLATFORM, causation=here.causation or cause, correlation=here.correlation or failover):
        return await control.append(
            event,
            after=after,
            tenant=PLATFORM,
            policy_version=POLICY,
            observed_seq=after.seq,
            decided_at=decided_at,
            event_id=id,
        )
