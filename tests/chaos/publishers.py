"""A publisher to be killed: bursts of observations, some with content, and rulings that race with other publishers'."""

import asyncio
import random
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledger import Ledger

from relight.engine.errors import RelightError, Superseded
from relight.engine.recorder.receipts import Ack, Receipt
from relight.engine.recorder.recorder import Recorder, RecorderOptions
from relight.events.base import Event
from relight.events.breakers import BreakerClosed, BreakerFailed, BreakerSucceeded
from relight.events.decisions import DecisionCheckpointed, DecisionOutcomeKnown, DecisionTaken, Outcome

REGION, TENANT = "eu", "acme"
CONTESTED = 2
"""Subjects on which all publishers rule."""
BURST_EVENTS = 150
PAUSE_S = 0.3
RULING_S = 0.04
THINKS_S = 0.01
FOLLOWED = 30
"""Bursts that are followed at once: whoever is behind waits."""
PROJECTED_EVERY = 3
CONTENT_EVERY = 60
FOLLOWS_S = 120.0
EXPOSED, WORKING = 0, 1
"""Places in what a process shares with the run: events not yet acknowledged, and what it has in hand."""


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What a publisher is told; `shared` and `pace` lie in memory that the run sees, too. `pace` 0: rest."""

    number: int
    seed: str
    nats_url: str
    monitor_url: str
    spools: Path
    ledger: Path
    shared: Any
    pace: Any


def publish(orders: Orders) -> None:
    asyncio.run(_publish(orders))


async def _publish(orders: Orders) -> None:
    options = RecorderOptions(
        nats_url=orders.nats_url,
        nats_monitor_urls=(orders.monitor_url,),
        region=REGION,
        tenant=TENANT,
        spools=orders.spools,
    )
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with Recorder(options) as recorder:
        publisher = Publisher(recorder, orders)
        work = [asyncio.create_task(task) for task in (publisher.observe(), publisher.rule(), publisher.show())]
        await ended.wait()
        for task in work:
            task.cancel()
        await asyncio.wait(work)


class Publisher:
    """Writes every id down before it is tried, and what was told after."""

    def __init__(self, recorder: Recorder, orders: Orders) -> None:
        self._recorder, self._orders = recorder, orders
        self._ledger = Ledger(orders.ledger)
        self._chance = random.Random(orders.seed)
        self._following: set[asyncio.Task[None]] = set()
        self._ruling = 0
        self._n = 0

    async def show(self) -> None:
        while True:
            health = self._recorder.health()
            self._orders.shared[EXPOSED] = health.exposed_events
            self._orders.shared[WORKING] = len(self._following) + self._ruling
            await asyncio.sleep(0.005)

    async def _resting(self) -> None:
        while not self._orders.pace.value:
            await asyncio.sleep(0.01)

    async def observe(self) -> None:
        chance = self._chance
        while True:
            await self._resting()
            while len(self._following) >= FOLLOWED:
                await asyncio.wait(self._following, return_when=asyncio.FIRST_COMPLETED)
            receipts = self._burst(chance.randint(1, BURST_EVENTS))
            task = asyncio.create_task(self._follow(receipts, through=chance.randrange(PROJECTED_EVERY) == 0))
            self._following.add(task)
            task.add_done_callback(self._following.discard)
            await asyncio.sleep(chance.uniform(0, PAUSE_S))

    def _burst(self, events: int) -> list[Receipt]:
        recorder = self._recorder
        ids = [recorder.clock.next_id() for _ in range(events)]
        self._ledger.write("asked", [(id,) for id in ids])
        contents, receipts = [], []
        for id in ids:
            self._n += 1
            if self._n % CONTENT_EVERY == 0:
                content = recorder.content(self._chance.randbytes(self._chance.randint(1, 20_000)))
                contents.append((id, content.sha256))
                event: Event = DecisionCheckpointed(
                    decision=self._decision(), checkpoint_type="state", state_snapshot={"n": self._n}, content=content
                )
            else:
                event = self._observation()
            receipts.append(recorder.record(event, id=id))
        if contents:
            self._ledger.write("content", contents)
        return receipts

    def _decision(self) -> str:
        return f"d-{self._orders.number}-{self._n // 4}"

    def _observation(self) -> Event:
        n, service = self._n, f"anthropic/claude-{self._n % 7}"
        match n % 4:
            case 0:
                return DecisionTaken(decision=self._decision(), decision_type="refund", agent="a", context={"n": n})
            case 1:
                return DecisionOutcomeKnown(decision=self._decision(), outcome=Outcome.SUCCESS, latency_ms=n % 5_000)
            case 2:
                return BreakerFailed(service_name=service, error_class="Timeout", details={"n": n})
            case _:
                return BreakerSucceeded(service_name=service, latency_ms=n % 5_000)

    async def _follow(self, receipts: Sequence[Receipt], *, through: bool) -> None:
        last = receipts[-1]
        try:
            await last.reached(Ack.SPOOLED, timeout_s=FOLLOWS_S)
        finally:
            self._tell_spooled(receipts)
        if last.refused is not None:
            return
        with suppress(RelightError):  # not told is not promised
            await last.reached(Ack.REPLICATED, timeout_s=FOLLOWS_S)
            self._ledger.write("replicated", [(receipt.id,) for receipt in receipts if receipt.pseq is not None])
            if through:
                await last.reached(Ack.PROJECTED, timeout_s=FOLLOWS_S)
                self._ledger.write("projected", [(receipt.id,) for receipt in receipts if receipt.pseq is not None])

    def _tell_spooled(self, receipts: Sequence[Receipt]) -> None:
        publisher = self._recorder.publisher
        self._ledger.write("spooled", [(r.id, publisher, r.pseq) for r in receipts if r.pseq is not None])
        if refused := [(r.id,) for r in receipts if r.refused is not None]:
            self._ledger.write("refused", refused)

    async def rule(self) -> None:
        chance = random.Random(f"{self._orders.seed} rulings")
        while True:
            await self._resting()
            self._ruling = 1
            with suppress(RelightError):  # NATS is away, or the outcome is unknown: then nothing was told
                await self._rule(f"contested-{chance.randrange(CONTESTED)}", chance)
            self._ruling = 0
            await asyncio.sleep(chance.uniform(0, RULING_S))

    async def _rule(self, service: str, chance: random.Random) -> None:
        recorder = self._recorder
        ruling = BreakerClosed(service_name=service, reason=f"publisher {self._orders.number}")
        tail = await self._in_loop(lambda log: log.tail(BreakerClosed, tenant=TENANT, entity=service, timeout_s=10))
        await asyncio.sleep(chance.uniform(0, THINKS_S))  # as long as a policy thinks: others do meanwhile
        id = recorder.clock.next_id()
        self._ledger.write("asked", [(id,)])
        try:
            won = await self._in_loop(
                lambda log: log.append(ruling, after=tail, tenant=TENANT, policy_version="1", event_id=id, timeout_s=10)
            )
        except Superseded:
            self._ledger.write("superseded", [(id,)])
        else:
            self._ledger.write("won", [(id, won.subject, won.rev)])

    async def _in_loop(self, work: Any) -> Any:
        return await asyncio.wrap_future(self._recorder.in_loop(self._recorder.with_control(work)))
