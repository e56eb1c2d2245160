"""Tasks worked on, beside a raw JetStream work queue: pulled, and acknowledged so that the server confirms it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

from measuring import Bench, Figure, percentile
from nats.aio.client import Client
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StreamConfig
from nats.js.errors import NotFoundError
from servers import connected, new_stream

from relight.engine.recorder.options import RecorderOptions
from relight.engine.recorder.recorder import Recorder
from relight.engine.tasks.serving import dispatching
from relight.engine.tasks.submitting import Submitter
from relight.engine.tasks.task import Task
from relight.engine.tasks.working import Working
from relight.events.catalog import prepare

RAW = "RAWQUEUE"
AT_ONCE = 32
BODY = b'{"order":991}'


async def measure(bench: Bench) -> AsyncIterator[Figure]:
    tasks, singly, rounds = bench.count(1_000, 200), bench.count(300, 100), bench.count(3, 1)
    ours: list[tuple[float, float, list[float]]] = []
    raw: list[tuple[float, float, list[float]]] = []
    prepare()
    async with connected(bench) as client:
        for n in range(rounds):
            await new_stream(client)
            ours.append(await _ours(bench, n, tasks, singly))
            raw.append(await _raw(client, tasks, singly))
        await new_stream(client)
    against = "a work queue: pull, acknowledged, confirmed"
    note = f"{AT_ONCE} at a time in one process; a claim and a completion are an fsynced message each"
    yield Figure(
        name="tasks submitted",
        unit="tasks/s",
        ours=[one[0] for one in ours],
        against=against,
        limit=[one[0] for one in raw],
    )
    yield Figure(
        name="tasks claimed and completed",
        unit="tasks/s",
        ours=[one[1] for one in ours],
        against=against,
        limit=[one[1] for one in raw],
        note=note,
    )
    for title, fraction in (("p50", 0.5), ("p99", 0.99)):
        yield Figure(
            name=f"submitted -> begun, {title}",
            unit="ms",
            ours=[percentile(one[2], fraction) for one in ours],
            against=against,
            limit=[percentile(one[2], fraction) for one in raw],
            note="one at a time, claimed by compare-and-set",
        )


async def _ours(bench: Bench, n: int, tasks: int, singly: int) -> tuple[float, float, list[float]]:
    """Submitted and worked on in a second, and the milliseconds until each of those submitted singly was begun."""
    spools = bench.folder / f"tasking-{n}"
    options = RecorderOptions(nats_url=bench.nats.url, region="eu", tenant="bench", spools=spools)
    begun: dict[str, float] = {}
    async with Recorder(options) as recorder, dispatching(recorder):
        working, submitter = Working(recorder), Submitter(recorder)
        woken = asyncio.Event()

        @working.register("bench", concurrency=AT_ONCE)
        async def work(task: Task) -> None:
            begun[task.id] = time.perf_counter()
            woken.set()

        async def submit_all() -> None:
            for first in range(0, tasks, AT_ONCE):
                names = range(first, min(tasks, first + AT_ONCE))
                await asyncio.gather(*(submitter.submit("bench", tenant="bench", task=f"t-{n}") for n in names))

        begun_s = time.perf_counter()
        await asyncio.wrap_future(recorder.in_loop(submit_all()))
        submitted_s = time.perf_counter() - begun_s
        begun_s = time.perf_counter()
        delays = []
        async with working.working() as worker:
            while worker.done < tasks:
                await asyncio.sleep(0.005)
            worked_s = time.perf_counter() - begun_s
            for one in range(singly):
                woken.clear()
                name = f"single-{one}"
                await asyncio.wrap_future(recorder.in_loop(submitter.submit("bench", tenant="bench", task=name)))
                told = time.perf_counter()
                await woken.wait()
                delays.append((begun[name] - told) * 1_000)
                await asyncio.sleep(0.01)
    return tasks / submitted_s, tasks / worked_s, delays


async def _raw(client: Client, tasks: int, singly: int) -> tuple[float, float, list[float]]:
    js = client.jetstream(timeout=30)
    with suppress(NotFoundError):
        await js.delete_stream(RAW)
    await js.add_stream(StreamConfig(name=RAW, subjects=["rawqueue"], retention=RetentionPolicy.WORK_QUEUE))
    consumer = ConsumerConfig(durable_name="w", ack_policy=AckPolicy.EXPLICIT, max_ack_pending=1_000)
    pulling = await js.pull_subscribe("rawqueue", durable="w", stream=RAW, config=consumer)
    begun_s = time.perf_counter()
    for first in range(0, tasks, AT_ONCE):
        await asyncio.gather(*(js.publish("rawqueue", BODY) for _ in range(min(AT_ONCE, tasks - first))))
    submitted_s = time.perf_counter() - begun_s
    begun_s, done = time.perf_counter(), 0
    while done < tasks:
        messages = await pulling.fetch(AT_ONCE, timeout=5)
        await asyncio.gather(*(message.ack_sync(timeout=10) for message in messages))
        done += len(messages)
    worked_s = time.perf_counter() - begun_s
    delays: list[float] = []

    async def pull() -> None:
        while len(delays) < singly:
            with suppress(NatsTimeout):
                for message in await pulling.fetch(1, timeout=5):
                    delays.append((time.perf_counter() - float(message.data)) * 1_000)
                    await message.ack_sync(timeout=10)

    pulled = asyncio.create_task(pull())
    for one in range(singly):
        await js.publish("rawqueue", str(time.perf_counter()).encode())
        while len(delays) <= one:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
    await pulled
    await js.delete_stream(RAW)
    return tasks / submitted_s, tasks / worked_s, delays
