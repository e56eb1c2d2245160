"""Events folded in memory a second, and with them read from the stream, beside nats-py only reading."""

import asyncio
import time
from collections.abc import AsyncIterator

from measuring import Bench, Figure, alternate
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from servers import connected, fill_stream, new_stream
from workload import encoded, messages

from relight.engine.log.reader import BEGINNING, Reader
from relight.engine.log.topology import STREAM, Headers
from relight.engine.tables.digest import digest_memory
from relight.engine.tables.folding import Folded

READ_BATCH = 10_000


async def measure(bench: Bench) -> AsyncIterator[Figure]:
    events = bench.count(50_000, 10_000)
    told = messages(events)
    async with connected(bench) as client, connected(bench, headers=Headers.NONE) as reading:
        await new_stream(client)
        await fill_stream(client, encoded(events))

        async def fold() -> float:
            started = time.perf_counter()
            folded = Folded()
            folded.fold(told)
            return events / (time.perf_counter() - started)

        async def read() -> float:
            started = time.perf_counter()
            async with Reader(reading, BEGINNING) as reader:
                while reader.position.seq < events:
                    await reader.batch(limit=READ_BATCH, linger_s=0, timeout_s=1)
            return events / (time.perf_counter() - started)

        async def digest() -> float:
            started = time.perf_counter()
            found = await digest_memory(reading)
            assert found.seq == events
            return events / (time.perf_counter() - started)

        async def received() -> float:
            return events / await _receive(client, events)

        taken = await alternate(bench.count(5, 2), fold=fold, read=read, digest=digest, received=received)
    name = "nats-py reading, nothing done"
    yield Figure(
        name="decoded and folded in memory", unit="events/s", ours=taken["fold"], against=name, limit=taken["received"]
    )
    yield Figure(name="read by the Reader", unit="events/s", ours=taken["read"], against=name, limit=taken["received"])
    yield Figure(
        name="read, folded and digested", unit="events/s", ours=taken["digest"], against=name, limit=taken["received"]
    )


async def _receive(client: Client, events: int) -> float:
    """Seconds for a push consumer without acknowledgements that only counts."""
    js = client.jetstream(timeout=10)
    inbox, everything, count = client.new_inbox(), asyncio.Event(), 0

    async def on_message(message: Msg) -> None:
        nonlocal count
        if message.headers and message.headers.get("Status") == "100":
            if reply := message.reply or message.headers.get("Nats-Consumer-Stalled"):
                await client.publish(reply)
            return
        count += 1
        if count == events:
            everything.set()

    started = time.perf_counter()
    subscription = await client.subscribe(inbox, cb=on_message, pending_msgs_limit=0, pending_bytes_limit=0)
    consumer = await js.add_consumer(
        STREAM,
        ConsumerConfig(
            deliver_subject=inbox,
            deliver_policy=DeliverPolicy.ALL,
            ack_policy=AckPolicy.NONE,
            flow_control=True,
            idle_heartbeat=1,
            mem_storage=True,
            num_replicas=1,
            inactive_threshold=30,
        ),
    )
    await asyncio.wait_for(everything.wait(), 120)
    seconds = time.perf_counter() - started
    await subscription.unsubscribe()
    await js.delete_consumer(STREAM, consumer.name)
    return seconds
