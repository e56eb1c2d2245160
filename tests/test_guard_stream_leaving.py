"""Streams that are closed, dropped or cancelled before their end: told once, and their connections are free."""

import asyncio
import gc

import httpx2
import pytest
import stack
import watched
from guarding import ASK
from watched import GOOD, OVERLOADED, Side, Watching

from relight.engine.fake.server import FakeAnthropic
from relight.engine.fake.steps import Fault, Step
from relight.engine.guard.facts import Failure
from relight.engine.guard.streams.watching import How

pytestmark = pytest.mark.asyncio(loop_scope="module")
ground, fake, side, async_side = watched.ground, watched.fake, watched.side, watched.async_side


async def test_a_stream_that_is_closed_early_is_abandoned_and_its_connection_free(
    side: Side, fake: FakeAnthropic
) -> None:
    watching = Watching()
    async with side.within(side.client(watching).messages.stream(**ASK)) as stream:
        async for event in side.each(stream):
            if event.type == "content_block_delta":
                break
    assert (watching.end.how, watching.end.failure) == (How.ABANDONED, Failure.ABANDONED)
    assert watching.end.answer.usage.input_tokens == 11
    await side.message(Watching())  # the pool's only connection


async def test_a_stream_that_was_never_read_is_abandoned(side: Side) -> None:
    watching = Watching()
    stream = await side.done(side.client(watching).messages.create(**ASK, stream=True))
    await side.done(stream.close())
    assert (watching.end.how, watching.end.size_bytes, watching.end.delivered) == (How.ABANDONED, 0, False)
    await side.message(Watching())


async def test_whoever_stops_after_message_stop_has_had_everything(side: Side) -> None:
    watching = Watching()
    async with side.within(side.client(watching).messages.stream(**ASK)) as stream:
        async for event in side.each(stream):
            if event.type == "message_stop":
                break
    assert (watching.end.how, watching.end.failure) == (How.COMPLETED, None)
    assert watching.end.answer.usage.output_tokens == 7


async def test_a_dropped_stream_is_told_as_abandoned_once(side: Side) -> None:
    watching = Watching()

    async def drop() -> None:
        stream = await side.done(side.client(watching).messages.create(**ASK, stream=True))
        async for _ in side.each(stream):
            break

    await drop()
    gc.collect()
    await stack.until(lambda: watching.ended)
    assert watching.end.how is How.ABANDONED
    await side.message(Watching())


async def test_a_stream_dropped_unread_is_abandoned_and_gives_its_connection_back(
    async_side: Side, fake: FakeAnthropic
) -> None:
    watching = Watching()
    await async_side.client(watching).messages.create(**ASK, stream=True)
    gc.collect()
    await stack.until(lambda: watching.ended)
    assert watching.end.how is How.ABANDONED
    await async_side.message(Watching())


async def test_a_cancelled_reader_goes_at_once(async_side: Side, fake: FakeAnthropic) -> None:
    watching, seen = Watching(), asyncio.Event()
    fake.play([GOOD.model_copy(update={"chunk_delay_s": 0.05, "text": "word " * 1_000})])

    async def read() -> None:
        async with async_side.client(watching).messages.stream(**ASK) as stream:
            async for _ in stream.text_stream:
                seen.set()

    task = asyncio.create_task(read())
    await seen.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (watching.end.how, watching.end.failure) == (How.ABANDONED, Failure.CANCELLED)
    fake.play([GOOD])
    await async_side.message(Watching())


async def test_who_is_cancelled_while_another_one_is_asked_for_gets_none(async_side: Side, fake: FakeAnthropic) -> None:
    watching = Watching()
    fake.play([OVERLOADED, Step(fault=Fault.SILENT), GOOD])
    task = asyncio.create_task(async_side.message(watching))
    await stack.until(lambda: len(fake.requests) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (watching.end.how, watching.end.failure) == (How.ABANDONED, Failure.CANCELLED)
    await async_side.message(Watching())


async def test_who_closes_a_stream_that_another_task_waits_for_wants_no_other_one(
    async_side: Side, fake: FakeAnthropic
) -> None:
    fake.play([GOOD.model_copy(update={"chunk_delay_s": 0.2})])
    watching = Watching()
    stream = await async_side.client(watching).messages.create(**ASK, stream=True)
    reading = asyncio.create_task(anext(aiter(stream)))
    await asyncio.sleep(0)  # it waits: no delta comes before the third pause
    await stream.close()
    with pytest.raises(httpx2.StreamError):
        await reading
    assert watching.end.how is How.ABANDONED
    assert len(fake.requests) == 1
