"""The projector beside FastStream's batch pull subscriber, which folds with the same code into the same tables."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

from freshness import RATE, steady_rate
from measuring import Bench, Figure, alternate, percentile
from nats.aio.msg import Msg
from nats.js import api
from projecting import follow
from servers import connected, fill_stream, new_stream
from subscriber_process import sequence, subscribed
from workload import encoded

from relight.engine.log.topology import Headers

BEHIND = "FastStream's batch pull subscriber"
ACK_WAIT_S = 2.0
BATCH = 500


async def measure(bench: Bench) -> AsyncIterator[Figure]:
    async for figure in _rates(bench):
        yield figure
    fresh = {}
    for script in ("projector_process.py", "subscriber_process.py"):
        fresh[script] = await steady_rate(bench, script, bench.count(8, 4))
    for title, fraction in (("p50", 0.5), ("p99", 0.99)):
        ours, peers = (percentile(taken.fresh_ms, fraction) for taken in fresh.values())
        yield Figure(
            name=f"recorded -> visible at {RATE:,}/s, {title}", unit="ms", ours=[ours], against=BEHIND, limit=[peers]
        )
    ours, peers = (taken.cpu_percent for taken in fresh.values())
    yield Figure(name=f"CPU at {RATE:,}/s", unit="% of a core", ours=[ours], against=BEHIND, limit=[peers])
    async for figure in _after_a_failure(bench):
        yield figure


async def _rates(bench: Bench) -> AsyncIterator[Figure]:
    rounds, events = bench.count(3, 1), bench.count(20_000, 10_000)
    async with connected(bench, headers=Headers.NONE) as client:
        await new_stream(client)
        await fill_stream(client, encoded(events))
        js = client.jetstream(timeout=10)
        for size in (1_000, 10_000):

            async def ours(size: int = size) -> float:
                return events / await follow(bench, client, size, events)

            async def peers(size: int = size, ack: api.AckPolicy = api.AckPolicy.EXPLICIT) -> float:
                committed, finished = 0, asyncio.Event()

                def done(batch: Sequence[Msg]) -> bool:
                    nonlocal committed
                    committed += len(batch)
                    if committed >= events:
                        finished.set()
                    return True

                async with bench.database() as url:
                    async with subscribed(bench.nats.url, url, batch_events=size, done=done, ack=ack) as connected_at:
                        await asyncio.wait_for(finished.wait(), 120)
                        seconds = time.perf_counter() - connected_at
                await js.delete_consumer("EV", "peer")
                return events / seconds

            async def once(size: int = size) -> float:
                return await peers(size, api.AckPolicy.ALL)

            taken = await alternate(rounds, ours=ours, peers=peers, once=once)
            for how, limit in (("each message acknowledged", "peers"), ("the last of each batch acknowledged", "once")):
                yield Figure(
                    name=f"projected, batches up to {size:,}",
                    unit="events/s",
                    ours=taken["ours"],
                    against=f"{BEHIND}, {how}",
                    limit=taken[limit],
                )


async def _after_a_failure(bench: Bench) -> AsyncIterator[Figure]:
    """What one batch that was committed and not acknowledged does to those after it: as after a kill in between."""
    events = 20 * BATCH
    async with connected(bench, headers=Headers.NONE) as client:
        await new_stream(client)
        await fill_stream(client, encoded(events))
        js = client.jetstream(timeout=10)
        for ack, how in ((api.AckPolicy.EXPLICIT, "each acknowledged"), (api.AckPolicy.ALL, "the last acknowledged")):
            seen: list[int] = []
            failed: list[int] = []

            def done(batch: Sequence[Msg], seen: list[int] = seen, failed: list[int] = failed) -> bool:
                seen.extend(sequence(message) for message in batch)
                if failed or len(batch) < BATCH:
                    return True
                failed.extend(sequence(message) for message in batch)
                return False

            async with bench.database() as url:
                async with subscribed(
                    bench.nats.url, url, batch_events=BATCH, done=done, ack=ack, ack_wait_s=ACK_WAIT_S
                ):
                    await asyncio.sleep(3 * ACK_WAIT_S)
                pending = (await js.consumer_info("EV", "peer")).num_ack_pending
            await js.delete_consumer("EV", "peer")
            highest, backwards = 0, 0
            for seq in seen:
                backwards += seq < highest
                highest = max(highest, seq)
            lost = sum(seen.count(seq) == 1 for seq in failed)
            note = f"{len(failed)} not acknowledged once; {len(seen) - events} delivered again, {pending} pending"
            for what, count in (("out of order", backwards), ("taken for done", lost)):
                yield Figure(name=f"{BEHIND}: {what}, {how}", unit="events", ours=[count], note=note)
