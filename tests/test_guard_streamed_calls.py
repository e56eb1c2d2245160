"""Guarded calls whose answers come as streams, in each of the forms that the clients have."""

import asyncio

import anthropic
import guarding
import httpx2
import pytest
import stack
from guarding import ASK, OVERLOADED_EVENT, SERVER_ERROR, Bench, Both, Notes

from relight.engine.fake.steps import Fault, Step
from relight.engine.guard.facts import Failure

stage, bench, both = guarding.stage, guarding.bench, guarding.both


async def test_streams_are_guarded_in_each_of_their_forms(bench: Bench, both: Both) -> None:
    for ask in (both.streamed, both.events):
        notes = Notes()
        bench.fake.play([OVERLOADED_EVENT, Step(status=500)])
        assert await ask(both.client(bench.fake, bench.guard(journal=notes)))
        assert len(bench.fake.requests) == 3
        assert bench.waited_s == [2, 1]
        assert notes.failures == [Failure.OVERLOADED, Failure.SERVER_ERROR, None]
        call = notes.call
        assert call.streams
        assert call.failure is None
        assert call.first_token_us is not None
        assert call.answer is not None
        assert call.answer.usage.output_tokens
        bench.waited_s.clear()


async def test_after_a_delta_nothing_is_asked_again(bench: Bench, both: Both) -> None:
    bench.fake.play([Step(fault=Fault.ERROR_EVENT, error_type="overloaded_error", after_deltas=1)])
    with pytest.raises(anthropic.APIStatusError):
        await both.streamed(both.client(bench.fake, bench.guard()))
    assert bench.waited_s == []
    assert len(bench.fake.requests) == 1
    assert bench.notes.call.failure is Failure.OVERLOADED


async def test_a_stream_whose_retries_are_used_up_raises_what_the_last_attempt_did(bench: Bench, both: Both) -> None:
    bench.fake.play([OVERLOADED_EVENT, Step(status=500, times=9)])
    with pytest.raises(anthropic.InternalServerError):
        await both.streamed(both.client(bench.fake, bench.guard()))
    assert bench.waited_s == [2, 1, 2, 4, 8]
    assert bench.notes.call.failure is Failure.SERVER_ERROR


async def test_a_stream_that_is_left_is_recorded_so_and_gives_its_connection_back(bench: Bench, both: Both) -> None:
    claude = both.client(bench.fake, bench.guard(), connections=1)
    if both.asynchronous:
        async with claude.messages.stream(**ASK) as stream:
            async for _ in stream:
                break
    else:
        with claude.messages.stream(**ASK) as stream:
            next(iter(stream))
    assert bench.notes.call.failure is Failure.ABANDONED
    assert await both.text(claude)


async def test_a_stream_that_another_task_closes_while_it_is_asked_for_again_is_recorded_once_and_frees_its_connection(
    bench: Bench, both: Both
) -> None:
    """Found: the core went on without its driver, the reader got an AssertionError, and no outcome was recorded."""
    again = Step(delay_s=0.2)
    bench.fake.play([OVERLOADED_EVENT, again])
    claude = both.client(bench.fake, bench.guard(), connections=1)
    stream = await both.do(claude.messages.create, **ASK, stream=True)
    reading = asyncio.create_task(both.do(anext, aiter(stream)) if both.asynchronous else both.do(next, iter(stream)))
    await stack.until(lambda: len(bench.fake.requests) == 2)
    await both.do(stream.close)
    assert bench.notes.call.failure is Failure.ABANDONED
    assert bench.notes.failures == [Failure.OVERLOADED, Failure.ABANDONED]
    with pytest.raises(httpx2.StreamClosed):
        await reading
    assert await both.text(claude)


async def test_raw_and_streamed_responses_are_guarded(bench: Bench, both: Both) -> None:
    bench.fake.play([SERVER_ERROR])
    claude = both.client(bench.fake, bench.guard())
    raw = await both.do(claude.messages.with_raw_response.create, **ASK)
    message = await raw.parse() if both.asynchronous else raw.parse()
    assert message.content[0].text
    assert raw.headers["request-id"] == "req_fake_000001"
    assert bench.notes.failures == [Failure.SERVER_ERROR, None]

    bench.fake.play([SERVER_ERROR])
    if both.asynchronous:
        async with claude.messages.with_streaming_response.create(**ASK) as response:
            assert (await response.parse()).content[0].text
    else:
        with claude.messages.with_streaming_response.create(**ASK) as response:
            assert response.parse().content[0].text
    assert bench.notes.failures == [Failure.SERVER_ERROR, None] * 2
    assert bench.notes.known_calls[-1].answer.usage.output_tokens


async def test_an_error_that_names_an_address_leaves_out_what_may_be_a_key(bench: Bench, both: Both) -> None:
    """Found: it quoted the whole of it, user and password among it."""
    bench.fake.play([Step(fault=Fault.NO_MESSAGE_STOP, after_deltas=1, headers={"request-id": ""})])
    place = bench.fake.url.removeprefix("http://")
    claude = both.client(bench.fake, bench.guard(), base_url=f"http://gateway:sk-secret@{place}")
    with pytest.raises(anthropic.APIConnectionError, match=r"of 127\.0\.0\.1/v1/messages ended") as raised:
        await both.events(claude)
    assert "sk-secret" not in str(raised.value)
