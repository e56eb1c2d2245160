"""The publisher as a process: a real recorder at a steady rate, for several tenants; says how far its events come."""

import asyncio
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import uvloop
from children import commands, say
from plan import Plan
from traffic import of_call, rulings, standing

from relight.engine import scope
from relight.engine.errors import RelightError
from relight.engine.recorder.receipts import Ack, Receipt
from relight.engine.recorder.recorder import Recorder, RecorderOptions
from relight.events.base import Event

STEP_S = 0.005
TICK_S = 0.1
SAMPLE_EVERY = 50
SAMPLE_WAITS_S = 300.0
KEPT_SAMPLES = 200_000


class Publishing:
    """Records while it is told to; every fiftieth event is followed to the tables."""

    def __init__(self, recorder: Recorder, plan: Plan, ids: Path) -> None:
        self._recorder, self._plan = recorder, plan
        self._ids = ids.open("w")
        self._events = self._calls()
        self._rate = 0.0
        self._samples: deque[dict[str, float]] = deque(maxlen=KEPT_SAMPLES)
        self._following: set[asyncio.Task[None]] = set()
        self.recorded = 0
        self.refused = 0

    def _calls(self) -> Iterator[tuple[str, Event]]:
        for call in count():
            tenant = self._plan.tenant(call)
            yield from ((tenant, event) for event in of_call(call))

    async def stand(self) -> None:
        """What each tenant has besides calls."""
        for number in range(self._plan.tenants):
            tenant = self._plan.tenant(number)
            for event in standing():
                self._record(tenant, event)
            for ruling in rulings():
                await self._rule(tenant, ruling)

    async def _rule(self, tenant: str, ruling: Any) -> None:
        tail = await asyncio.wrap_future(
            self._recorder.in_loop(
                self._recorder.with_control(lambda log: log.tail(type(ruling), tenant=tenant, entity=ruling.entity))
            )
        )
        await asyncio.wrap_future(
            self._recorder.in_loop(
                self._recorder.with_control(
                    lambda log: log.append(ruling, after=tail, tenant=tenant, policy_version="1")
                )
            )
        )

    async def prefill(self, events: int) -> None:
        for _ in range(events):
            self._record(*next(self._events))
            if self.recorded % 1_000 == 0:
                await asyncio.sleep(0.02)

    def pace(self, events_per_s: float) -> None:
        self._rate = events_per_s

    async def run(self) -> None:
        """At the rate, in steps; what a busy moment held up follows at once."""
        due, before = 0.0, time.monotonic()
        while True:
            await asyncio.sleep(STEP_S)
            now = time.monotonic()
            due, before = min(due + (now - before) * self._rate, self._rate), now
            for _ in range(int(due)):
                self._record(*next(self._events))
            due -= int(due)

    def _record(self, tenant: str, event: Event) -> None:
        began = time.monotonic()
        with scope.entered(tenant=tenant):
            receipt = self._recorder.record(event)
        self.recorded += 1
        self._ids.write(f"{receipt.id} {event.TYPE}\n")
        if self.recorded % SAMPLE_EVERY == 0:
            task = asyncio.create_task(self._follow(receipt, began))
            self._following.add(task)
            task.add_done_callback(self._following.discard)

    async def _follow(self, receipt: Receipt, began: float) -> None:
        sample = {"recorded": began}
        with suppress(RelightError):
            for ack in (Ack.SPOOLED, Ack.REPLICATED, Ack.PROJECTED):
                await receipt.reached(ack, timeout_s=SAMPLE_WAITS_S)
                sample[f"{ack}_ms"] = (time.monotonic() - began) * 1_000
        self._samples.append(sample)

    def tick(self) -> dict[str, Any]:
        health = self._recorder.health()
        self._ids.flush()
        return {
            "recorded": self.recorded,
            "refused": health.refused_events,
            "exposed": health.exposed_events,
            "failure": health.failure,
        }

    async def samples(self) -> list[dict[str, float]]:
        """Those since the last time, the ones still on their way included once they are there."""
        if following := set(self._following):
            await asyncio.wait(following)
        taken = list(self._samples)
        self._samples.clear()
        return taken


async def main() -> None:
    orders = commands()
    told = await anext(orders)
    plan = Plan(**told["plan"])
    options = RecorderOptions(
        nats_url=told["nats_url"],
        nats_monitor_urls=told["monitor_urls"],
        region="eu",
        tenant="tenant-0",
        spools=Path(told["spools"]),
    )
    async with Recorder(options) as recorder:
        publishing = Publishing(recorder, plan, Path(told["ids"]))
        work = [asyncio.create_task(publishing.run()), asyncio.create_task(_tick(publishing.tick))]
        say({"kind": "started", "publisher": recorder.publisher})
        async for order in orders:
            match order.pop("do"):
                case "fill":
                    await publishing.stand()
                    await publishing.prefill(plan.prefill_events)
                    say({"kind": "filled"})
                case "pace":
                    publishing.pace(order["events_per_s"])
                case "samples":
                    say({"kind": "samples", "samples": await publishing.samples(), **publishing.tick()})
        for task in work:
            task.cancel()


async def _tick(of: Callable[[], dict[str, Any]]) -> None:
    while True:
        await asyncio.sleep(TICK_S)
        say({"kind": "tick", **of()})


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
