"""Streams that fail: they go on from another one before their first delta, and after it they never do."""

from typing import Any

import anthropic
import httpx2
import pytest
import watched
from guarding import ASK
from watched import GOOD, OVERLOADED, Side, Watching, faults, outcome

from relight.engine.errors import DeadlineExceeded
from relight.engine.fake.server import FakeAnthropic
from relight.engine.fake.steps import Fault, Step
from relight.engine.guard.facts import Failure
from relight.engine.guard.streams.watching import How

pytestmark = pytest.mark.asyncio(loop_scope="module")
FAILS_EARLY = [
    (OVERLOADED, Failure.OVERLOADED),
    (Step(fault=Fault.ERROR_EVENT, error_type="api_error"), Failure.SERVER_ERROR),
    (Step(fault=Fault.ERROR_EVENT, error_type="rate_limit_error"), Failure.RATE_LIMITED),
    (Step(fault=Fault.ERROR_EVENT, error_type="something_new"), Failure.UNKNOWN),
    (Step(fault=Fault.RESET_IN_BODY), Failure.CONNECTION),
    (Step(fault=Fault.RESET_AFTER_HEADERS), Failure.CONNECTION),
    (Step(fault=Fault.TRUNCATED), Failure.CONNECTION),
    (Step(fault=Fault.MALFORMED_JSON), Failure.MALFORMED),
]
ENDS_SILENTLY = [
    (Step(fault=Fault.NO_MESSAGE_STOP), Failure.TRUNCATED),
    (Step(fault=Fault.EMPTY_BODY), Failure.TRUNCATED),
    (Step(fault=Fault.WRONG_CONTENT_TYPE), Failure.MALFORMED),
]
ground, fake, side = watched.ground, watched.fake, watched.side


@faults(FAILS_EARLY, ENDS_SILENTLY)
async def test_a_stream_that_fails_before_its_first_delta_goes_on_from_another_one(
    side: Side, fake: FakeAnthropic, step: Step, failure: Failure
) -> None:
    fake.play([step, step, GOOD])
    watching = Watching()
    message = await side.message(watching)
    assert (message.content[0].text, message.stop_reason) == ("all is well", "end_turn")
    assert [end.failure for end in watching.failed] == [failure, failure]
    assert not any(end.delivered or end.first_token_us for end in watching.failed)
    assert watching.end.how is How.COMPLETED
    assert len(fake.requests) == 3


@faults(FAILS_EARLY)
async def test_without_another_one_the_caller_gets_the_sdks_own_error(
    side: Side, fake: FakeAnthropic, step: Step, failure: Failure
) -> None:
    fake.play([step, step])
    bare, guarded = await outcome(side), await outcome(side, watching := Watching(again=0))
    assert isinstance(bare, Exception)
    assert type(guarded) is type(bare)
    assert getattr(guarded, "type", None) == getattr(bare, "type", None)
    assert watching.end is watching.failed[0]
    assert (watching.end.how, watching.end.failure) == (How.FAILED, failure)
    assert watching.end.error_type == step.error_type


@faults(ENDS_SILENTLY)
async def test_what_the_sdk_lets_end_in_silence_is_an_error(
    side: Side, fake: FakeAnthropic, step: Step, failure: Failure
) -> None:
    fake.play([step, step])
    bare, guarded = await outcome(side), await outcome(side, watching := Watching(again=0))
    assert isinstance(bare, list)
    assert isinstance(guarded, anthropic.APIConnectionError)
    assert "req_fake_000001" in str(guarded)
    assert "it is not whole" in str(guarded)
    assert (watching.end.how, watching.end.failure) == (How.FAILED, failure)


@faults(
    [
        (Step(fault=Fault.ERROR_EVENT, error_type="overloaded_error", after_deltas=1), Failure.OVERLOADED),
        (Step(fault=Fault.RESET_IN_BODY, after_deltas=2), Failure.CONNECTION),
        (Step(fault=Fault.NO_MESSAGE_STOP, after_deltas=1), Failure.TRUNCATED),
    ]
)
async def test_after_its_first_delta_a_stream_is_never_asked_for_again(
    side: Side, fake: FakeAnthropic, step: Step, failure: Failure
) -> None:
    fake.play([step])
    watching = Watching()
    events, error = [], None
    stream = await side.done(side.client(watching).messages.create(**ASK, stream=True))
    try:
        async for event in side.each(stream):
            events += [event.type]
    except Exception as raised:
        error = raised
    assert events.count("content_block_delta") == step.after_deltas
    assert isinstance(error, anthropic.APIError if failure is not Failure.CONNECTION else httpx2.ReadError)
    assert (len(fake.requests), watching.failed) == (1, [])
    assert (watching.end.how, watching.end.failure, watching.end.delivered) == (How.FAILED, failure, True)
    assert watching.end.first_token_us


async def test_after_going_on_what_is_told_and_shown_is_the_last_ones(side: Side, fake: FakeAnthropic) -> None:
    fake.play([OVERLOADED, GOOD])
    watching = Watching(keep_bytes=100_000)
    async with side.within(side.client(watching).messages.stream(**ASK)) as stream:
        await side.done(stream.get_final_message())
        assert stream.request_id == "req_fake_000001"
    assert watching.end.body.count(b"message_start") == 2  # the event's name, and once more in its data
    assert watching.failed[0].body.endswith(b"\n\n")


async def test_what_again_raises_is_what_the_caller_gets(side: Side, fake: FakeAnthropic) -> None:
    fake.play([OVERLOADED])
    watching = Watching()
    watching.raises = DeadlineExceeded()
    assert await outcome(side, watching) is watching.raises
    assert watching.end.error is watching.raises
    assert (watching.end.how, watching.end.failure) == (How.FAILED, Failure.OVERLOADED)


async def test_what_fails_after_message_stop_fails_nobody(side: Side, fake: FakeAnthropic) -> None:
    fake.play([Step(fault=Fault.RESET_IN_BODY, after_deltas=1_000_000)])
    assert isinstance(await outcome(side, watching := Watching()), list)
    assert watching.end.how is How.COMPLETED


@faults(
    [
        (Step(fault=Fault.ERROR_EVENT, error_type="overloaded_error"), Failure.OVERLOADED),
        (Step(fault=Fault.ERROR_EVENT, error_type="rate_limit_error"), Failure.RATE_LIMITED),
        (Step(fault=Fault.ERROR_EVENT, error_type="api_error"), Failure.SERVER_ERROR),
        (Step(fault=Fault.NO_MESSAGE_STOP), Failure.TRUNCATED),
        (Step(fault=Fault.RESET_IN_BODY), Failure.CONNECTION),
    ]
)
async def test_bedrocks_event_streams_go_on_in_the_same_way(
    side: Side, fake: FakeAnthropic, step: Step, failure: Failure
) -> None:
    fake.play([step, GOOD])
    watching = Watching()
    kind: Any = anthropic.AsyncAnthropicBedrock if side.is_async else anthropic.AnthropicBedrock
    client = kind(
        base_url=fake.url,
        aws_access_key="a",
        aws_secret_key="b",
        aws_region="eu-west-1",
        max_retries=0,
        middleware=[watching],
        http_client=side.http if side.is_async else side.sync_http,
    )
    stream = await side.done(client.messages.create(**ASK, stream=True))
    events = [event async for event in side.each(stream)]
    assert (events[0].type, events[-1].type) == ("message_start", "message_stop")
    assert "".join(event.delta.text for event in events if event.type == "content_block_delta") == "all is well"
    assert [end.failure for end in watching.failed] == [failure]
    assert watching.end.how is How.COMPLETED
    assert watching.end.answer.usage.cache_read_tokens == 5
