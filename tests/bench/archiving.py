"""Events sealed a second, what they take in the archive, and an archiver's share of a core at a steady rate."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import psutil
from measuring import Bench, Figure, alternate
from servers import connected, fill_stream, new_stream
from workload import encoded, observations

from relight.engine.archive.archiver import Archiver
from relight.engine.archive.hand import SealLimits
from relight.engine.archive.keys import kept_key
from relight.engine.archive.store import FolderStore
from relight.engine.clock import Clock
from relight.engine.log.reader import BEGINNING, Reader
from relight.engine.log.topology import Headers
from relight.engine.recorder.recorder import Recorder, RecorderOptions

RATE = 1_000
WARM_UP_S = 3
READ_BATCH = 5_000


async def measure(bench: Bench) -> AsyncIterator[Figure]:
    events = bench.count(60_000, 20_000)
    ready = encoded(events)
    raw_bytes = sum(len(event.body) + len(event.subject) for event in ready)
    sizes: list[float] = []
    numbers = count()
    async with connected(bench, headers=Headers.MESSAGE_ID) as client:
        await new_stream(client)
        await fill_stream(client, ready)

        async def sealed() -> float:
            folder = bench.folder / f"archive-{next(numbers)}"
            archiver = Archiver(
                client,
                FolderStore(folder),
                lambda: kept_key(bench.folder / "archive.pem"),
                limits=SealLimits(),
                clock=Clock(),
            )
            started = time.perf_counter()
            await archiver.run(once=True)
            took_s = time.perf_counter() - started
            look = archiver.seen()
            assert look.messages == events
            files = folder.glob("segments/*")
            sizes.append(sum(file.stat().st_size for file in files) / events)
            return events / took_s

        async def read() -> float:
            started = time.perf_counter()
            async with Reader(client, BEGINNING) as reader:
                async for _ in reader.through(events, limit=READ_BATCH):
                    pass
            return events / (time.perf_counter() - started)

        taken = await alternate(bench.count(5, 2), sealed=sealed, read=read)
    yield Figure(
        name="sealed into a folder, fsynced",
        unit="events/s",
        ours=taken["sealed"],
        against="reading the stream alone",
        limit=taken["read"],
    )
    yield Figure(
        name="archive, manifests and indexes included",
        unit="bytes an event",
        ours=sizes,
        against="subject and body",
        limit=[raw_bytes / events] * len(sizes),
    )
    percent = await _steady(bench, bench.count(20, 6))
    yield Figure(
        name=f"the archiver at {RATE:,}/s",
        unit="% of a core",
        ours=[percent],
        note="a process of its own, a segment every 2 s, sealed heads written to PostgreSQL",
    )


async def _steady(bench: Bench, seconds: int) -> float:
    """The share of a core that a process which seals takes while another records at the rate."""
    async with connected(bench) as client, bench.database() as url:
        await new_stream(client)
        script = Path(__file__).with_name("archiver_process.py")
        arguments = [bench.nats.url, url, str(bench.folder / "steady")]
        child = subprocess.Popen([sys.executable, script, *arguments], stdout=subprocess.PIPE, text=True)
        options = RecorderOptions(
            nats_url=bench.nats.url,
            nats_monitor_urls=[bench.nats.monitor_url],
            region="eu",
            tenant="acme",
            spools=bench.folder / "archiving",
        )
        try:
            assert child.stdout is not None
            await asyncio.to_thread(child.stdout.readline)
            async with Recorder(options) as recorder:
                return await asyncio.to_thread(_recorded, recorder, psutil.Process(child.pid), seconds)
        finally:
            child.terminate()
            await asyncio.to_thread(child.wait, 20)


def _recorded(recorder: Recorder, process: psutil.Process, seconds: int) -> float:
    started, cpu_s, cpu_at = time.perf_counter(), 0.0, 0.0
    for number, event in enumerate(observations(RATE * (seconds + WARM_UP_S))):
        delay = started + number / RATE - time.perf_counter()
        if delay > 0:
            time.sleep(delay)
        recorder.record(event)
        if number == RATE * WARM_UP_S:
            cpu_s, cpu_at = _cpu_s(process), time.perf_counter()
    return (_cpu_s(process) - cpu_s) / (time.perf_counter() - cpu_at) * 100


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
