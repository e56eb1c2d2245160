"""Events recorded a second by one process: fsynced in its spool, and acknowledged by a stream proven to fsync."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from itertools import count

from measuring import Bench, Figure, alternate
from nats.js.api import DiscardPolicy, StorageType, StreamConfig
from servers import BATCH, connected, new_stream, publish_raw
from workload import encoded, observations

from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder, RecorderOptions
from relight.engine.spool.spool import Spooled
from relight.events.envelope import CONTENT_TYPE

GROUP = 2_000
TARGET = 20.0


async def measure(bench: Bench) -> AsyncIterator[Figure]:
    events = bench.count(30_000, 8_000)
    awaited_events = bench.count(1_500, 400)
    facts, ready = list(observations(events)), encoded(events)
    spooled_rates: list[float] = []
    numbers = count()
    async with connected(bench) as client:
        await new_stream(client)
        js = client.jetstream(timeout=30)
        await js.add_stream(
            config=StreamConfig(
                name="RAW",
                subjects=["raw.>"],
                storage=StorageType.FILE,
                discard=DiscardPolicy.NEW,
                duplicate_window=120,
                allow_direct=True,
                allow_atomic=True,
                deny_delete=True,
            )
        )

        async def recorded() -> float:
            options = RecorderOptions(
                nats_url=bench.nats.url,
                nats_monitor_urls=[bench.nats.monitor_url],
                region="eu",
                tenant="acme",
                spools=bench.folder / f"recording-{next(numbers)}",
            )
            async with Recorder(options) as recorder:
                assert (await recorder.attestation()).proven
                await recorder.record(facts[0]).reached(Ack.REPLICATED)
                started = time.perf_counter()
                receipts = await asyncio.to_thread(lambda: [recorder.record(fact) for fact in facts])
                await receipts[-1].reached(Ack.SPOOLED, timeout_s=120)
                spooled_rates.append(events / (time.perf_counter() - started))
                await receipts[-1].reached(Ack.REPLICATED, timeout_s=120)
                return events / (time.perf_counter() - started)

        async def awaited() -> float:
            run = next(numbers)
            started = time.perf_counter()
            for event in ready[:awaited_events]:
                headers = {"Content-Type": CONTENT_TYPE, "Nats-Msg-Id": f"{event.id}-{run}"}
                await js.publish(f"raw.{event.subject}", event.body, headers=headers)
            return awaited_events / (time.perf_counter() - started)

        async def batched() -> float:
            run = next(numbers)
            started = time.perf_counter()
            for first in range(0, events, BATCH):
                await publish_raw(client, ready[first : first + BATCH], prefix="raw.", suffix=f"-{run}")
            return events / (time.perf_counter() - started)

        async def inserted() -> float:
            return await asyncio.to_thread(_insert, bench, ready, next(numbers))

        rounds = bench.count(5, 2)
        taken = await alternate(rounds, recorded=recorded, awaited=awaited, batched=batched, inserted=inserted)
        await js.delete_stream("RAW")
    about = "while the drainer publishes"
    yield Figure(
        name="recorded and fsynced (spooled)",
        unit="events/s",
        ours=spooled_rates,
        against="awaited js.publish, same server",
        limit=taken["awaited"],
        target=TARGET,
        note=about,
    )
    yield Figure(
        name="recorded, acknowledged, proven",
        unit="events/s",
        ours=taken["recorded"],
        against="awaited js.publish, same server",
        limit=taken["awaited"],
        target=TARGET,
        note="from the first record() to the last proven acknowledgement",
    )
    yield Figure(
        name="recorded and fsynced (spooled)",
        unit="events/s",
        ours=spooled_rates,
        against="SQLite alone, same bytes",
        limit=taken["inserted"],
        note=about,
    )
    yield Figure(
        name="recorded, acknowledged, proven",
        unit="events/s",
        ours=taken["recorded"],
        against="atomic batches alone, same bytes",
        limit=taken["batched"],
    )


def _insert(bench: Bench, ready: list[Spooled], run: int) -> float:
    database = sqlite3.connect(bench.folder / f"raw-{run}.db", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute(
        "CREATE TABLE events (pseq INTEGER PRIMARY KEY, id TEXT NOT NULL, subject TEXT NOT NULL, body BLOB NOT NULL,"
        " sha256 TEXT NOT NULL, recorded_ms INTEGER NOT NULL)"
    )
    started = time.perf_counter()
    for first in range(0, len(ready), GROUP):
        database.execute("BEGIN IMMEDIATE")
        database.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", ready[first : first + GROUP])
        database.execute("COMMIT")
    rate = len(ready) / (time.perf_counter() - started)
    database.close()
    return rate
