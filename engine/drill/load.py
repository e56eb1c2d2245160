"""What one region's agents do while a drill goes on: they record, submit tasks, and work on them."""

import asyncio
import random
import sys
import time
from contextlib import suppress
from pathlib import Path

import orjson
from pydantic import BaseModel, ConfigDict

from relight.engine.drill.ledger import Kind, Ledger
from relight.engine.errors import RecordRefused, RelightError
from relight.engine.recorder.receipts import Ack, Receipt
from relight.engine.recorder.recorder import Recorder
from relight.engine.tasks.submitting import Submitter
from relight.engine.tasks.task import Task
from relight.engine.tasks.working import Working
from relight.events.base import Event
from relight.events.breakers import BreakerFailed, BreakerSucceeded
from relight.events.decisions import DecisionOutcomeKnown, DecisionTaken, Outcome

BURST_EVERY_S = 0.02
SYNC_EVERY_S = 0.05
AGAIN_S = 0.2
FOLLOWS_S = 600.0
TENANT = "drill"


class Orders(BaseModel):
    """What such a process is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    region: str
    number: int
    seed: str
    nats_url: str
    spools: Path
    ledger: Path
    queue: str
    events_per_s: float
    tasks_per_s: float
    steps: int
    step_s: float
    concurrency: int


class Publisher:
    """Writes every id down before it is tried, and what was told after."""

    def __init__(self, recorder: Recorder, orders: Orders, ledger: Ledger) -> None:
        self._recorder, self._orders, self._ledger = recorder, orders, ledger
        self._recorded: asyncio.Queue[list[Receipt]] = asyncio.Queue()
        self._spooled: asyncio.Queue[list[Receipt]] = asyncio.Queue()
        self._n = 0
        self.going = asyncio.Event()
        self._unsettled = 0
        self.settled = asyncio.Event()
        """No burst and no submission is under way."""
        self.settled.set()

    async def publish(self) -> None:
        burst = max(1, round(self._orders.events_per_s * BURST_EVERY_S))
        while True:
            await self.going.wait()
            self._begun()
            await self._recorded.put(self._burst(burst))
            await asyncio.sleep(burst / self._orders.events_per_s)

    def _burst(self, events: int) -> list[Receipt]:
        recorder, longest_s, receipts = self._recorder, 0.0, []
        ids = [recorder.clock.next_id() for _ in range(events)]
        self._ledger.write(Kind.ASKED, ids)
        for id in ids:
            event = self._event()
            began_s = time.perf_counter()
            receipts.append(recorder.record(event, id=id))
            longest_s = max(longest_s, time.perf_counter() - began_s)
        self._ledger.write(Kind.TOOK, [longest_s])
        return receipts

    def _event(self) -> Event:
        self._n += 1
        n, service = self._n, f"anthropic/claude-{self._n % 7}"
        decision = f"{self._orders.region}-{self._orders.number}-{n // 4}"
        match n % 4:
            case 0:
                return DecisionTaken(decision=decision, decision_type="refund", agent="drill", context={"n": n})
            case 1:
                return DecisionOutcomeKnown(decision=decision, outcome=Outcome.SUCCESS, latency_ms=n % 5_000)
            case 2:
                return BreakerFailed(service_name=service, error_class="Timeout", details={"n": n})
            case _:
                return BreakerSucceeded(service_name=service, latency_ms=n % 5_000)

    async def spooled(self) -> None:
        while True:
            receipts = await self._recorded.get()
            for receipt in receipts:
                with suppress(RecordRefused):
                    await receipt.reached(Ack.SPOOLED, timeout_s=FOLLOWS_S)
            if refused := [receipt.id for receipt in receipts if receipt.refused is not None]:
                self._ledger.write(Kind.REFUSED, refused)
            if taken := [receipt for receipt in receipts if receipt.pseq is not None]:
                self._ledger.write(Kind.SPOOLED, [[receipt.id, receipt.pseq] for receipt in taken])
            await self._spooled.put(taken)

    async def replicated(self) -> None:
        while True:
            receipts = await self._spooled.get()
            for receipt in receipts[-1:]:
                await self._reached(receipt)
                self._ledger.write(Kind.REPLICATED, [receipt.id for receipt in receipts])
            self._settled()

    async def _reached(self, last: Receipt) -> None:
        while True:
            try:
                return await last.reached(Ack.REPLICATED, timeout_s=FOLLOWS_S)
            except RelightError:  # not proven just now, or not yet: nothing was told
                await asyncio.sleep(AGAIN_S)

    async def submit(self) -> None:
        """At random moments, on average as many as ordered; one that is not acknowledged is submitted again."""
        chance, submitter = random.Random(self._orders.seed), Submitter(self._recorder)
        while self._orders.tasks_per_s:
            await asyncio.sleep(chance.expovariate(self._orders.tasks_per_s))
            await self.going.wait()
            self._begun()
            task = f"t-{self._orders.region}-{self._recorder.clock.next_id()}"
            await self._submitted(submitter, task)
            self._ledger.write(Kind.SUBMITTED, [task])
            self._settled()

    async def _submitted(self, submitter: Submitter, task: str) -> None:
        while True:
            submitting = submitter.submit(self._orders.queue, {"task": task}, tenant=TENANT, task=task)
            try:
                await asyncio.wrap_future(self._recorder.in_loop(submitting))
            except RelightError:  # the same name again is safe
                await asyncio.sleep(AGAIN_S)
            else:
                return

    def _begun(self) -> None:
        self._unsettled += 1
        self.settled.clear()

    def _settled(self) -> None:
        self._unsettled -= 1
        if not self._unsettled:
            self.settled.set()

    async def sync(self) -> None:
        while True:
            await asyncio.sleep(SYNC_EVERY_S)
            await asyncio.to_thread(self._ledger.sync)


async def act(recorder: Recorder, orders: Orders) -> None:
    """Until told to end, by a line on stdin or its end: `go`, `rest` (answered once all is acknowledged), `end`."""
    ledger = Ledger(orders.ledger)
    publisher, working = Publisher(recorder, orders, ledger), Working(recorder)

    @working.register(orders.queue, concurrency=orders.concurrency, tenant=TENANT, backoff_s=0.2)
    async def work(task: Task) -> str:
        for step in range(task.state.step, orders.steps):
            async with task.effect(f"step {step}"):
                ledger.write(Kind.EFFECT, [[task.id, task.epoch, f"step {step}"]])
                await asyncio.sleep(orders.step_s)
            await task.checkpoint(step + 1, None)
        ledger.write(Kind.DONE, [[task.id, task.epoch]])
        return task.id

    ledger.write(Kind.OPENED, [recorder.publisher])
    tasks = [
        asyncio.create_task(doing)
        for doing in (
            publisher.publish(),
            publisher.spooled(),
            publisher.replicated(),
            publisher.submit(),
            publisher.sync(),
            _working(working),
        )
    ]
    listening = asyncio.create_task(_listen(publisher))
    done, _ = await asyncio.wait([*tasks, listening], return_when=asyncio.FIRST_COMPLETED)
    for task in (*tasks, listening):
        task.cancel()
    await asyncio.gather(*tasks, listening, return_exceptions=True)
    ledger.close()
    for task in done:
        task.result()


async def _working(working: Working) -> None:
    async with working.working(drain_s=2):
        await asyncio.Event().wait()


async def _listen(publisher: Publisher) -> None:
    lines = await _stdin()
    say("ready")
    while word := (await lines.readline()).strip():
        match word:
            case b"go":
                publisher.going.set()
            case b"rest":
                publisher.going.clear()
                await publisher.settled.wait()
                say("resting")
            case _:
                return


async def _stdin() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def say(what: str) -> None:
    sys.stdout.write(orjson.dumps({"what": what}).decode() + "\n")
    sys.stdout.flush()
