"""A publisher at a steady rate that measures what record() costs its caller, whatever is away."""

import asyncio
import signal
import time
from array import array
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledger import Ledger

from relight.engine.recorder.receipts import Receipt
from relight.engine.recorder.recorder import Recorder, RecorderOptions
from relight.events.breakers import BreakerFailed

STEP_S = 0.005
SHOWN_EVERY_S = 0.05


@dataclass(frozen=True, kw_only=True)
class SteadyOrders:
    """`pace`: events a second, and `shared`: recorded and exposed events, in memory that the run sees, too.

    `results` is told at the end: when each call began (time.monotonic) and how many microseconds it took.
    """

    options: RecorderOptions
    ledger: Path
    pace: Any
    shared: Any
    failure: Any
    results: Any


RECORDED, EXPOSED, REFUSED = 0, 1, 2
FAILURE_BYTES = 500


def record_steadily(orders: SteadyOrders) -> None:
    asyncio.run(_record(orders))


async def _record(orders: SteadyOrders) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    ledger = Ledger(orders.ledger)
    began, took = array("d"), array("d")
    async with Recorder(orders.options) as recorder:
        open_receipts: deque[Receipt] = deque()
        due, before, shown, n = 0.0, time.monotonic(), 0.0, 0
        while not ended.is_set():
            await asyncio.sleep(STEP_S)
            now = time.monotonic()
            pace = orders.pace.value
            due, before = min(due + (now - before) * pace, pace), now
            ids = [recorder.clock.next_id() for _ in range(int(due))]
            due -= len(ids)
            if ids:
                ledger.write("asked", [(id,) for id in ids])
            for id in ids:
                n += 1
                event = BreakerFailed(service_name="api", error_class="Timeout", details={"n": n, "text": "x" * 400})
                began.append(time.monotonic())
                started = time.perf_counter_ns()
                receipt = recorder.record(event, id=id)
                took.append((time.perf_counter_ns() - started) / 1e3)
                open_receipts.append(receipt)
            _tell(ledger, recorder.publisher, open_receipts)
            if now - shown > SHOWN_EVERY_S:
                shown, health = now, recorder.health()
                orders.shared[RECORDED], orders.shared[EXPOSED] = health.recorded_events, health.exposed_events
                orders.shared[REFUSED] = health.refused_events
                orders.failure.value = (health.failure or "").encode()[: FAILURE_BYTES - 1]
        while open_receipts:
            await asyncio.sleep(STEP_S)
            _tell(ledger, recorder.publisher, open_receipts)
    orders.results.send_bytes(began.tobytes())
    orders.results.send_bytes(took.tobytes())


def _tell(ledger: Ledger, publisher: str, receipts: deque[Receipt]) -> None:
    """Writes down what has become of the first of them; those after it are no further."""
    spooled, refused = [], []
    while receipts and (receipts[0].pseq is not None or receipts[0].refused is not None):
        receipt = receipts.popleft()
        if receipt.pseq is not None:
            spooled.append((receipt.id, publisher, receipt.pseq))
        else:
            refused.append((receipt.id,))
    if spooled:
        ledger.write("spooled", spooled)
    if refused:
        ledger.write("refused", refused)
