"""What a guard costs: added to a call, beside what others add; its CPU in all, recorded; and the event loop's lag."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from guard_peers import NOTHING, RETRY_AND_BREAKER, STAMINA_CIRCUIT, TENACITY_PURGATORY, async_peers, sync_peers
from measuring import Bench, Figure, alternate, percentile
from model_calls import ASK, async_bare_call, async_client, bare_call, client
from servers import connected, new_stream

from relight.engine.guard.guard import Guard
from relight.engine.guard.guarded import guarded
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder, RecorderOptions
from relight.events.breakers import BreakerSucceeded

BURST = 20
PAUSE_S = 0.02
"""After each burst: 1,000 calls a second at most, so that the recorder's threads work meanwhile as they would."""
RATE = 500
"""Calls a second of a busy process: what CPU and lag are measured at."""
TICK_S = 0.005
CPU_TARGET_US = 2_000.0
"""1 % of a call of 200 ms."""
Microseconds = dict[str, list[float]]


async def measure(bench: Bench) -> AsyncIterator[Figure]:
    async with connected(bench) as connection:
        await new_stream(connection)
    async with _recording(bench) as recorder:
        guard = Guard(recorder)
        for kind, sides, best in (
            ("sync call", _sync_sides(guard), STAMINA_CIRCUIT),
            ("async call", await _async_sides(guard), RETRY_AND_BREAKER),
            ("async call that waits", await _waiting_sides(guard), RETRY_AND_BREAKER),
        ):
            async for figure in _added(bench, kind, sides, best):
                yield figure
        async for figure in _whole_calls(bench, recorder):
            yield figure
        async for figure in _at_a_rate(bench, recorder):
            yield figure


@asynccontextmanager
async def _recording(bench: Bench) -> AsyncIterator[Recorder]:
    options = RecorderOptions(
        nats_url=bench.nats.url,
        nats_monitor_urls=[bench.nats.monitor_url],
        region="eu",
        tenant="acme",
        spools=Path(bench.folder / "guarding"),
    )
    async with Recorder(options) as recorder:
        yield recorder


Side = Callable[[int], Awaitable[list[float]]]
"""So many calls, and how long each took in microseconds."""


def _sync_sides(guard: Guard) -> dict[str, Side]:
    request, bare = bare_call()

    def guarded_call(request: Any) -> Any:
        return guard.handle(request, bare)

    def side(call: Callable[[Any], Any]) -> Side:
        def run(calls: int) -> list[float]:
            taken = []
            for _ in range(0, calls, BURST):
                for _ in range(BURST):
                    started = time.perf_counter_ns()
                    call(request)
                    taken.append((time.perf_counter_ns() - started) / 1e3)
                time.sleep(PAUSE_S)
            return taken

        return lambda calls: asyncio.to_thread(run, calls)

    sides = {"bare": bare, "guard": guarded_call, **sync_peers(bare)}
    return {name: side(call) for name, call in sides.items()}


async def _async_sides(guard: Guard) -> dict[str, Side]:
    request, bare = await async_bare_call()

    def side(call: Callable[[Any], Awaitable[Any]]) -> Side:
        async def run(calls: int) -> list[float]:
            taken = []
            for _ in range(0, calls, BURST):
                for _ in range(BURST):
                    started = time.perf_counter_ns()
                    await call(request)
                    taken.append((time.perf_counter_ns() - started) / 1e3)
                await asyncio.sleep(PAUSE_S)
            return taken

        return run

    sides = {"bare": bare, "guard": lambda request: guard.handle_async(request, bare), **async_peers(bare)}
    return {name: side(call) for name, call in sides.items()}


async def _waiting_sides(guard: Guard) -> dict[str, Side]:
    """Calls that wait once for their answer, as all real ones do, driven by hand: the wait itself takes no time."""
    request, bare = await async_bare_call(waits=True)

    def side(call: Callable[[Any], Any]) -> Side:
        async def run(calls: int) -> list[float]:
            taken = []
            for _ in range(0, calls, BURST):
                for _ in range(BURST):
                    started = time.perf_counter_ns()
                    going = call(request)
                    going.send(None)
                    with suppress(StopIteration):
                        going.send(None)
                    taken.append((time.perf_counter_ns() - started) / 1e3)
                await asyncio.sleep(PAUSE_S)
            return taken

        return run

    peers = async_peers(bare)
    shown = (NOTHING, RETRY_AND_BREAKER, STAMINA_CIRCUIT, TENACITY_PURGATORY)
    sides = {
        "bare": bare,
        "guard": lambda request: guard.handle_async(request, bare),
        **{name: peers[name] for name in shown},
    }
    return {name: side(call) for name, call in sides.items()}


async def _added(bench: Bench, kind: str, sides: dict[str, Side], best: str) -> AsyncIterator[Figure]:
    """What each adds to the median of the bare function; `best` is the one that ours is held to."""
    calls, rounds = bench.count(2_000, 400), bench.count(7, 3)
    taken: dict[str, Microseconds] = {"p50": {}, "p99": {}}
    for run in sides.values():
        await run(BURST)

    def one_round(name: str, run: Side) -> Callable[[], Awaitable[float]]:
        async def measured() -> float:
            times = await run(calls)
            for title, fraction in (("p50", 0.5), ("p99", 0.99)):
                taken[title].setdefault(name, []).append(percentile(times, fraction))
            return 0.0

        return measured

    await alternate(rounds, **{name: one_round(name, run) for name, run in sides.items()})  # type: ignore[arg-type]
    for title, times in taken.items():
        bare = taken["p50"]["bare"]
        added = {
            name: [max(0.01, time_us - bare_us) for time_us, bare_us in zip(times[name], bare, strict=True)]
            for name in sides
            if name != "bare"
        }
        ours = added.pop("guard")
        for peer, theirs in added.items():
            yield Figure(
                name=f"guard, added to {kind}, {title}",
                unit="us",
                ours=ours,
                against=peer,
                limit=theirs,
                target=1.0 if (title, peer) == ("p50", best) else None,
            )


async def _whole_calls(bench: Bench, recorder: Recorder) -> AsyncIterator[Figure]:
    """Of `messages.create` in all, over a transport that costs nothing."""
    calls, rounds = bench.count(600, 200), bench.count(7, 3)
    clients = {"bare": client(), "guarded": guarded(client(), recorder)}
    async_clients = {"bare": async_client(), "guarded": guarded(async_client(), recorder)}

    def one_round(name: str) -> Callable[[], Awaitable[float]]:
        def run() -> float:
            return percentile([_timed(lambda: clients[name].messages.create(**ASK)) for _ in range(calls)], 0.5)

        return lambda: asyncio.to_thread(run)

    def one_async_round(name: str) -> Callable[[], Awaitable[float]]:
        async def run() -> float:
            taken = []
            for _ in range(calls):
                started = time.perf_counter_ns()
                await async_clients[name].messages.create(**ASK)
                taken.append((time.perf_counter_ns() - started) / 1e3)
                await asyncio.sleep(0)
            return percentile(taken, 0.5)

        return run

    for kind, side in (("sync", one_round), ("async", one_async_round)):
        taken = await alternate(rounds, bare=side("bare"), guarded=side("guarded"))  # type: ignore[arg-type]
        yield Figure(
            name=f"guarded messages.create, {kind}, p50",
            unit="us",
            ours=taken["guarded"],
            against="bare client, transport of no cost",
            limit=taken["bare"],
        )


async def _at_a_rate(bench: Bench, recorder: Recorder) -> AsyncIterator[Figure]:
    """CPU of the whole process, the recorder's threads and their sending to NATS included, and the loop's lag."""
    seconds, rounds = bench.count(4, 1), bench.count(5, 2)
    clients = {"bare": async_client(), "guarded": guarded(async_client(), recorder)}
    lags: dict[float, Microseconds] = {part: {name: [] for name in clients} for part in (0.5, 0.99)}
    shares: Microseconds = {}

    def one_round(name: str) -> Callable[[], Awaitable[float]]:
        async def run() -> float:
            calls = seconds * RATE
            threads_s, cpu_s, lag = _cpu_s_by_thread(), time.process_time(), asyncio.create_task(_lag(seconds))
            await _paced(clients[name], calls)
            if name == "guarded":  # what was recorded before this has been sent as well
                event = BreakerSucceeded(service_name="bench", latency_ms=1)
                await recorder.record(event).reached(Ack.REPLICATED)
            used_us = (time.process_time() - cpu_s) / calls * 1e6
            late_ms = await lag
            for part in lags:
                lags[part][name].append(percentile(late_ms, part))
            if name == "guarded":
                for thread, used_s in _cpu_s_by_thread().items():
                    shares.setdefault(thread, []).append((used_s - threads_s.get(thread, 0.0)) / calls * 1e6)
            return used_us

        return run

    taken = await alternate(rounds, bare=one_round("bare"), guarded=one_round("guarded"))  # type: ignore[arg-type]
    bare = taken["bare"]
    added = [guarded_us - bare_us for guarded_us, bare_us in zip(taken["guarded"], bare, strict=True)]
    yield Figure(name=f"guard's CPU a call, recorded and sent, {RATE}/s", unit="us", ours=added, target=CPU_TARGET_US)
    yield Figure(
        name=f"guarded call's CPU in all, {RATE}/s", unit="us", ours=taken["guarded"], against="bare client", limit=bare
    )
    for thread, used in shares.items():
        if thread in _THREADS:
            yield Figure(name=f"of it, {_THREADS[thread]}", unit="us", ours=used)
    for part, of_clients in lags.items():
        yield Figure(
            name=f"event loop's lag at {RATE} guarded calls/s, p{part * 100:.0f}",
            unit="ms",
            ours=of_clients["guarded"],
            against="bare client",
            limit=of_clients["bare"],
        )


_THREADS = {
    "MainThread": "the SDK and the guard on the caller's path",
    "relight-writer": "making events, and the disk",
    "relight-uplink": "sending to NATS",
}


def _cpu_s_by_thread() -> dict[str, float]:
    found = {}
    for thread in threading.enumerate():
        if thread.ident is not None:
            found[thread.name] = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
    return found


async def _paced(asked: Any, calls: int) -> None:
    """Each in a task of its own, as a server's requests are."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as group:
        for number in range(calls):
            # Also when it is late: it would else begin many calls at once, and be the lag that it measures.
            await asyncio.sleep(max(0.0, began + number / RATE - loop.time()))
            group.create_task(asked.messages.create(**ASK))


async def _lag(seconds: float) -> list[float]:
    """How much later than asked the loop came back, in milliseconds."""
    loop = asyncio.get_running_loop()
    until, lags = loop.time() + seconds, []
    while (now := loop.time()) < until:
        await asyncio.sleep(TICK_S)
        lags.append((loop.time() - now - TICK_S) * 1e3)
    return lags


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - started) / 1e3
