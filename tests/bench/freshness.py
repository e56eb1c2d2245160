"""From `record()` to visible for a reader in SQL, at a steady rate, with the projector in a process of its own."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil
from measuring import Bench, Figure, percentile
from servers import connected, new_stream
from workload import observations

from relight.engine.recorder.recorder import Recorder, RecorderOptions

RATE = 1_000
SAMPLE_EVERY = 50
WARM_UP_S = 2
TARGET_MS = 50.0
TARGET_CPU_PERCENT = 15.0
HERE = Path(__file__).parent


@dataclass(frozen=True)
class SteadyRate:
    """How long each sample took until it was visible, how far apart the polls were, and the projector's share."""

    fresh_ms: list[float]
    poll_ms: list[float]
    cpu_percent: float


async def steady_rate(bench: Bench, script: str, seconds: int) -> SteadyRate:
    """With the process of this script as projector."""
    async with connected(bench) as client, bench.database() as url:
        await new_stream(client)
        options = RecorderOptions(
            nats_url=bench.nats.url,
            nats_monitor_urls=[bench.nats.monitor_url],
            region="eu",
            tenant="acme",
            spools=bench.folder / "freshness",
        )
        projector = _child(script, bench.nats.url, url)
        watcher = _child("visible_process.py", url)
        try:
            async with Recorder(options) as recorder:
                await asyncio.to_thread(_answer, projector)
                await asyncio.to_thread(_answer, watcher)
                percent = await asyncio.to_thread(_steady, recorder, projector, watcher, seconds)
            taken = json.loads(await asyncio.to_thread(_answer, watcher))
        finally:
            for child in (projector, watcher):
                child.terminate()
                await asyncio.to_thread(child.wait, 10)
    return SteadyRate(taken["fresh_ms"], taken["poll_ms"], percent)


async def measure(bench: Bench) -> AsyncIterator[Figure]:
    taken = await steady_rate(bench, "projector_process.py", bench.count(10, 4))
    resolution = percentile(taken.poll_ms, 0.5)
    note = f"{len(taken.fresh_ms)} samples, polled by primary key every {resolution:.1f} ms"
    for title, fraction, target in (("p50", 0.5, None), ("p99", 0.99, TARGET_MS)):
        fresh = percentile(taken.fresh_ms, fraction)
        yield Figure(
            name=f"recorded -> visible at {RATE:,}/s, {title}", unit="ms", ours=[fresh], target=target, note=note
        )
    yield Figure(
        name=f"the projector at {RATE:,}/s",
        unit="% of a core",
        ours=[taken.cpu_percent],
        target=TARGET_CPU_PERCENT,
        note="a process of its own, client side of PostgreSQL and NATS included",
    )


def _steady(
    recorder: Recorder, projector: "subprocess.Popen[str]", watcher: "subprocess.Popen[str]", seconds: int
) -> float:
    """Records at the rate and names samples to the watcher; returns the projector's CPU in % of a core."""
    process, cpu, cpu_at = psutil.Process(projector.pid), 0.0, 0.0
    asked = _pipe(watcher.stdin)
    started = time.perf_counter()
    for number, event in enumerate(observations(RATE * (seconds + WARM_UP_S))):
        delay = started + number / RATE - time.perf_counter()
        if delay > 0:
            time.sleep(delay)
        recorded_ns = time.monotonic_ns()
        receipt = recorder.record(event)
        if number == RATE * WARM_UP_S:
            cpu, cpu_at = _cpu_s(process), time.perf_counter()
        # Every fourth event is a breaker's: the sampled ones are those of decisions, whose audit log has each event.
        if number >= RATE * WARM_UP_S and number % SAMPLE_EVERY == 0:
            asked.write(f"{recorded_ns} {receipt.id}\n")
            asked.flush()
    percent = (_cpu_s(process) - cpu) / (time.perf_counter() - cpu_at) * 100
    asked.close()
    return percent


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _child(script: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, HERE / script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _answer(child: "subprocess.Popen[str]") -> str:
    return _pipe(child.stdout).readline()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
