"""Where the day is played: three regions with a recorder each, one clock that the script moves, and what is so far."""

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from random import Random

from relight.engine import scope
from relight.engine.clock import ScriptedClock
from relight.engine.demo.world import REGIONS
from relight.engine.log.control import Tail
from relight.engine.log.topology import STREAM
from relight.engine.recorder.receipts import Ack, Receipt
from relight.engine.runtime import Relight
from relight.events.base import Control, Event
from relight.events.envelope import PLATFORM
from relight.events.subjects import control_subject

POLICY_VERSION = "demo-1"

Storyline = AsyncIterator[str]
"""Yields the time of day at which it goes on, `14:02` or `14:02:30`."""
Teller = Callable[["Stage"], Storyline]


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """An event of the day, for what follows from it; a ruling has its place on the stream."""

    id: str
    correlation: str
    at: datetime
    receipt: Receipt | None = None
    seq: int = 0
    rev: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a task, and where."""

    tenant: str
    owner: str
    region: str
    assigned: Happened


@dataclass(kw_only=True)
class Stage:
    """What the storylines share: silent regions, failing dependencies and how often they fail, open breakers, who
    holds which task, and events that others refer to by name."""

    seed: int
    midnight: datetime
    clock: ScriptedClock
    relights: Mapping[str, Relight]
    lost: set[str] = field(default_factory=set)
    failing: dict[str, float] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    held: dict[str, Holder] = field(default_factory=dict)
    facts: dict[str, Happened] = field(default_factory=dict)
    tails: dict[str, Tail] = field(default_factory=dict)

    def random(self, name: str) -> Random:
        """A storyline's own, so that no other one changes what it draws."""
        return Random(f"{self.seed}/{name}")

    def now(self) -> datetime:
        return self.clock.now()

    def up(self) -> Sequence[str]:
        """The regions that take part now."""
        return [region for region in REGIONS if region not in self.lost]

    def record(
        self,
        region: str,
        event: Event,
        *,
        tenant: str | None = None,
        agent: str | None = None,
        task: str | None = None,
        cause: Happened | None = None,
    ) -> Happened:
        """Observes in `region`; without a cause it belongs to what the scope around does."""
        with self.following(cause, tenant=tenant, agent=agent, task=task) as correlation:
            receipt = self.relights[region].record(event)
        return Happened(id=receipt.id, correlation=correlation, at=self.now(), receipt=receipt)

    async def rule(
        self, region: str, event: Control, *, tenant: str = PLATFORM, cause: Happened | None = None
    ) -> Happened:
        """Appends a ruling, once what it rests on stands on the stream."""
        relight = self.relights[region]
        observed_seq = 0 if cause is None else cause.seq
        if cause is not None and cause.receipt is not None:
            await cause.receipt.reached(Ack.REPLICATED)
            observed_seq = await _last_seq(relight)
        assert event.POLICY is not None
        subject = control_subject(event.POLICY, tenant, event.entity)
        after = self.tails.get(subject) or await relight.tail(type(event), event.entity, tenant=tenant)
        at = self.now()
        with self.following(cause, tenant=tenant) as correlation:
            tail = await relight.rule(
                event, after=after, policy_version=POLICY_VERSION, observed_seq=observed_seq, tenant=tenant
            )
        self.tails[subject] = tail
        assert tail.event is not None
        return Happened(id=tail.event.id, correlation=correlation, at=at, seq=tail.seq, rev=tail.rev)

    @contextmanager
    def following(self, cause: Happened | None, **who: str | None) -> Iterator[str]:
        """The scope of what follows from `cause`; yields its correlation, a new one where nothing is said."""
        here = scope.current()
        correlation = cause.correlation if cause else here.correlation or self.clock.next_id()
        causation = cause.id if cause else here.causation
        with scope.entered(correlation=correlation, causation=causation, **who):
            yield correlation

    async def play(self, tellers: Sequence[Teller], *, progressed: Callable[[float], None]) -> None:
        """Lets the storylines go on by turns, in the order of their times; `progressed` is told the hours."""
        order = count()
        turns: list[tuple[datetime, int, Storyline]] = []
        storylines = [teller(self) for teller in tellers]

        async def go_on(storyline: Storyline) -> None:
            if (time := await anext(storyline, None)) is not None:
                heapq.heappush(turns, (self.time(time), next(order), storyline))

        for storyline in storylines:
            await go_on(storyline)
        while turns:
            moment, _, storyline = heapq.heappop(turns)
            self.clock.move_to(max(moment, self.now()))
            progressed((self.now() - self.midnight) / timedelta(hours=1))
            await go_on(storyline)

    def time(self, of_day: str) -> datetime:
        hours, minutes, *seconds = map(float, of_day.split(":"))
        return self.midnight + timedelta(hours=hours, minutes=minutes, seconds=sum(seconds))


async def _last_seq(relight: Relight) -> int:
    asked = relight.recorder.with_jetstream(lambda js: js.stream_info(STREAM))
    return (await asyncio.wrap_future(relight.recorder.in_loop(asked))).state.last_seq
