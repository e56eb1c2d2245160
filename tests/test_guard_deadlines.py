"""Deadlines and cancellation of guarded calls."""

import asyncio
import time
import weakref
from contextlib import suppress
from typing import Any

import anthropic
import guarding
import pytest
from anthropic import APIRequest
from guarding import ASK, SERVER_ERROR, Bench, Both

import relight
from relight.engine.fake.steps import Fault, Step
from relight.engine.guard.calls.alarms import SWEPT
from relight.engine.guard.facts import Failure
from relight.engine.guard.policy import GuardPolicy

TOLERANCE_S = 0.35
"""Of deadlines: the machine may be busy."""
stage, bench, both = guarding.stage, guarding.bench, guarding.both


@pytest.mark.parametrize(
    "step",
    [
        Step(fault=Fault.SILENT),
        Step(fault=Fault.SLOW_HEADERS, byte_delay_s=0.05),
        Step(fault=Fault.SLOW_BODY, byte_delay_s=0.05),
        Step(delay_s=30),
    ],
    ids=lambda step: str(step.fault),
)
@pytest.mark.parametrize("streams", [False, True], ids=["plain", "stream"])
async def test_a_deadline_is_kept_whatever_the_server_does(bench: Bench, both: Both, step: Step, streams: bool) -> None:
    bench.fake.play([step])
    claude = both.client(bench.fake, bench.guard(), connections=1)
    began_s = time.monotonic()
    with relight.deadline(0.2, clock=bench.clock), pytest.raises(relight.DeadlineExceeded):
        await (both.streamed if streams else both.create)(claude)
    assert time.monotonic() - began_s < 0.2 + TOLERANCE_S
    assert bench.notes.call.failure is Failure.DEADLINE
    bench.fake.play(())
    assert await both.text(claude)  # its only connection is free


async def test_a_deadline_covers_retries_and_a_wait_beyond_it_is_not_begun(bench: Bench, both: Both) -> None:
    bench.fake.play([Step(status=500, times=9)])
    with relight.deadline(6, clock=bench.clock), pytest.raises(anthropic.InternalServerError):
        await both.create(both.client(bench.fake, bench.guard()))
    assert bench.waited_s == [1, 2]


async def test_an_inner_deadline_never_lengthens_an_outer_one(bench: Bench, both: Both) -> None:
    bench.fake.play([Step(status=500, times=9)])
    with relight.deadline(2, clock=bench.clock), relight.deadline(600, clock=bench.clock):
        with pytest.raises(anthropic.InternalServerError):
            await both.create(both.client(bench.fake, bench.guard()))
    assert bench.waited_s == [1]
    with pytest.raises(ValueError), relight.deadline(0):
        pass


async def test_a_deadline_that_is_over_says_what_failed_before(bench: Bench, both: Both) -> None:
    bench.fake.play([SERVER_ERROR, Step(fault=Fault.SILENT)])
    policy = GuardPolicy(jitter=0, breaker=None, deadline_s=1.2)
    with pytest.raises(relight.DeadlineExceeded, match="after 2 attempts") as raised:
        await both.create(both.client(bench.fake, bench.guard(policy)))
    assert isinstance(raised.value.__cause__, anthropic.InternalServerError)
    assert bench.notes.failures == [Failure.SERVER_ERROR, Failure.DEADLINE]


async def test_a_timeout_of_the_callers_own_is_respected_and_asked_again(bench: Bench, both: Both) -> None:
    bench.fake.play([Step(fault=Fault.SILENT)])
    claude = both.client(bench.fake, bench.guard()).with_options(timeout=0.1)
    assert await both.text(claude)
    assert bench.notes.failures == [Failure.TIMEOUT, None]


async def test_a_cancelled_call_ends_at_once_and_is_recorded(bench: Bench) -> None:
    both = Both(True)
    bench.fake.play([Step(fault=Fault.SILENT)])
    claude = both.client(bench.fake, bench.guard(), connections=1)
    calling = asyncio.create_task(both.create(claude))
    while not bench.fake.requests:
        await asyncio.sleep(0.005)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert bench.notes.call.failure is Failure.CANCELLED
    assert bench.notes.failures == [Failure.CANCELLED]
    assert await both.text(claude)
    await both.close()


async def test_a_call_cancelled_between_attempts_is_recorded(bench: Bench) -> None:
    both, begun = Both(True), asyncio.Event()

    async def sleep(seconds: float) -> None:
        begun.set()
        await asyncio.sleep(60)

    bench.fake.play([SERVER_ERROR])
    bench.paces.sleep_async = sleep  # type: ignore[method-assign]
    calling = asyncio.create_task(both.create(both.client(bench.fake, bench.guard())))
    await begun.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert bench.notes.call.failure is Failure.CANCELLED
    assert bench.notes.failures == [Failure.SERVER_ERROR]
    await both.close()


async def test_a_thread_is_left_alone_between_its_calls(bench: Bench) -> None:
    """The watch over deadlines cuts what a call waits on, and nothing that its thread does later."""
    both = Both(False)
    claude = both.client(bench.fake, bench.guard())
    bench.fake.play([Step(fault=Fault.SILENT)])

    def call() -> str:
        with suppress(relight.DeadlineExceeded), relight.deadline(0.05, clock=bench.clock):
            claude.messages.create(**ASK)
        return str(claude.messages.create(**ASK).content[0].text)

    assert await asyncio.to_thread(call)
    await both.close()


async def test_deadlines_of_many_calls_are_kept_each_for_itself(bench: Bench) -> None:
    both = Both(True)
    bench.fake.play([Step(fault=Fault.SILENT, times=20)])
    claude = both.client(bench.fake, bench.guard(), connections=30)

    async def took_s(seconds: float) -> float:
        began_s = time.monotonic()
        with relight.deadline(seconds, clock=bench.clock), pytest.raises(relight.DeadlineExceeded):
            await both.create(claude)
        return time.monotonic() - began_s

    allowed_s = [0.02 * ((i * 7) % 20 + 1) for i in range(20)]
    for allowed, took in zip(allowed_s, await asyncio.gather(*map(took_s, allowed_s)), strict=True):
        assert allowed <= took < allowed + TOLERANCE_S
    await both.close()


async def test_calls_with_a_nearer_deadline_are_let_go_when_they_are_over(bench: Bench, both: Both) -> None:
    """Found: for as long as each might have lasted, its request and its answer were held in memory."""
    claude = both.client(bench.fake, bench.guard())
    await both.text(claude)
    gone = []

    async def noted(request: APIRequest, call_next: Any) -> Any:
        gone.append(weakref.ref(request))
        return await call_next(request)

    def noted_sync(request: APIRequest, call_next: Any) -> Any:
        gone.append(weakref.ref(request))
        return call_next(request)

    claude = both.client(bench.fake, noted if both.asynchronous else noted_sync, bench.guard())
    for _ in range(3 * SWEPT):
        with relight.deadline(300, clock=bench.clock):
            await both.text(claude)
    assert sum(request() is not None for request in gone) <= 2 * SWEPT


def test_a_deadline_in_infinity_is_refused_in_plain_words() -> None:
    with pytest.raises(ValueError, match="leave it out"), relight.deadline(float("inf")):
        pass
