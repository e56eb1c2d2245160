"""What it costs that a streamed answer is watched, beside what the SDK spends on decoding it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import anthropic
import httpx2
from anthropic.types import RawMessageStreamEvent
from measuring import Bench, Figure, alternate
from model_calls import Chunks, events

from relight.engine.clock import Clock
from relight.engine.guard.streams.streams import watch_async, watch_sync
from relight.engine.guard.streams.watching import StreamEnd

DELTAS = 1_000
DEADLINE_US = 600_000_000
TARGET = 0.05
FIRST_TARGET_US = 100.0
ALMOST_EVENT_BYTES = 130
"""So that hardly a chunk ends where an event does."""
RAW_RUNS = 10


class _Told:
    def again(self, end: StreamEnd) -> httpx2.Response | None:
        return None

    def ended(self, end: StreamEnd) -> None:
        pass


class _AsyncTold(_Told):
    async def again(self, end: StreamEnd) -> httpx2.Response | None:  # type: ignore[override]
        return None


async def measure(bench: Bench) -> AsyncIterator[Figure]:
    rounds = bench.count(15, 5)
    frames = list(events(DELTAS))
    body = b"".join(frames)
    askew = [body[at : at + ALMOST_EVENT_BYTES] for at in range(0, len(body), ALMOST_EVENT_BYTES)]
    for kind in ("sync", "async"):
        for cut, chunks in (("an event a chunk", frames), ("chunks askew", askew)):
            bare, watched, decoded = await _alternated(rounds, kind, chunks)
            added = [watched_us - bare_us for watched_us, bare_us in zip(watched, bare, strict=True)]
            yield Figure(
                name=f"watching a stream, {kind}, {cut}, per event",
                unit="us",
                ours=added,
                against="the SDK's decoding of it",
                limit=decoded,
                target=TARGET,
            )
        bare, watched = await _first(rounds, kind, frames)
        yield Figure(
            name=f"until the first delta, added, {kind}",
            unit="us",
            ours=[watched_us - bare_us for watched_us, bare_us in zip(watched, bare, strict=True)],
            target=FIRST_TARGET_US,
        )


def _response(chunks: Sequence[bytes], kind: str, *, watched: bool) -> httpx2.Response:
    request = httpx2.Request("POST", "http://localhost/v1/messages")
    headers = {"content-type": "text/event-stream; charset=utf-8"}
    response = httpx2.Response(200, headers=headers, stream=Chunks(chunks), request=request)
    if watched:
        clock = Clock()
        deadline_us = clock.now_us() + DEADLINE_US
        if kind == "sync":
            watch_sync(response, _Told(), clock, deadline_us=deadline_us)
        else:
            watch_async(response, _AsyncTold(), clock, deadline_us=deadline_us)
    return response


async def _alternated(rounds: int, kind: str, chunks: Sequence[bytes]) -> tuple[list[float], list[float], list[float]]:
    """Microseconds an event: the bytes alone, the bytes watched, and the SDK's events of them."""
    decoders: dict[str, Any] = {
        "sync": anthropic.Anthropic(api_key="k"),
        "async": anthropic.AsyncAnthropic(api_key="k"),
    }

    async def read(response: httpx2.Response) -> None:
        if kind == "sync":
            for _ in response.iter_bytes():
                pass
        else:
            async for _ in response.aiter_bytes():
                pass

    async def decode(response: httpx2.Response) -> None:
        stream: Any = {"sync": anthropic.Stream, "async": anthropic.AsyncStream}[kind](
            cast_to=RawMessageStreamEvent, response=response, client=decoders[kind]
        )
        if kind == "sync":
            for _ in stream:
                pass
        else:
            async for _ in stream:
                pass

    def side(
        reading: Callable[[httpx2.Response], Awaitable[None]], runs: int, *, watched: bool
    ) -> Callable[[], Awaitable[float]]:
        async def run() -> float:
            return (
                min([await _took_us(reading, _response(chunks, kind, watched=watched)) for _ in range(runs)]) / DELTAS
            )

        return run

    taken = await alternate(
        rounds,
        bare=side(read, RAW_RUNS, watched=False),
        watched=side(read, RAW_RUNS, watched=True),
        decoded=side(decode, RAW_RUNS // 2, watched=False),
    )
    return taken["bare"], taken["watched"], taken["decoded"]


async def _took_us(reading: Callable[[httpx2.Response], Awaitable[None]], response: httpx2.Response) -> float:
    """Of the CPU: nothing is waited for here, but the machine has others to serve."""
    started = time.thread_time_ns()
    await reading(response)
    return (time.thread_time_ns() - started) / 1e3


async def _first(rounds: int, kind: str, frames: Sequence[bytes]) -> tuple[list[float], list[float]]:
    """Microseconds until the chunk of the first delta is there, none of them waited for."""
    delta = frames[3]

    async def read(response: httpx2.Response) -> None:
        if kind == "sync":
            for chunk in response.iter_bytes():
                if chunk is delta:
                    break
        else:
            async for chunk in response.aiter_bytes():
                if chunk is delta:
                    break

    def side(*, watched: bool) -> Callable[[], Awaitable[float]]:
        async def run() -> float:
            taken = [await _took_us(read, _response(frames, kind, watched=watched)) for _ in range(RAW_RUNS)]
            await asyncio.sleep(0)
            return min(taken)

        return run

    taken = await alternate(rounds, bare=side(watched=False), watched=side(watched=True))
    return taken["bare"], taken["watched"]
