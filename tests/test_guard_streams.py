"""Streamed responses under the guard's watch: what the SDK's clients get of them, and what is told of their end."""

import asyncio
import gc
import inspect
import json
import socket
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from threading import Event
from typing import Any

import anthropic
import httpx2
import pytest
import pytest_asyncio
import stack
from anthropic import Middleware
from anthropic._middleware import AsyncCallNext, CallNext
from anthropic._request import APIRequest
from anthropic._response import APIResponse, AsyncAPIResponse
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from relight.engine.clock import Clock
from relight.engine.errors import DeadlineExceeded
from relight.engine.fake.server import FakeAnthropic, fake_anthropic_thread
from relight.engine.fake.steps import Fault, Step
from relight.engine.guard.facts import Failure, Usage
from relight.engine.guard.streams.streams import Expected, watch_async, watch_sync
from relight.engine.guard.streams.watching import How, StreamEnd

ASK: dict[str, Any] = {
    "model": "claude-opus-4-8",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "hello there"}],
}
GOOD = Step(text="all is well", input_tokens=11, output_tokens=7, cache_read_tokens=5, cache_write_tokens=3)
OVERLOADED = Step(fault=Fault.ERROR_EVENT, error_type="overloaded_error")
pytestmark = pytest.mark.asyncio(loop_scope="module")


class Watching(Middleware):
    """Watches streamed responses and asks again as often as it may: `failed` are ends of attempts, `ended` of calls."""

    def __init__(self, again: int = 4, *, deadline_s: float | None = None, keep_bytes: int = 0) -> None:
        self.left = again
        self.deadline_s = deadline_s
        self.keep_bytes = keep_bytes
        self.expects = Expected.EVENTS
        self.failed: list[StreamEnd] = []
        self.ended: list[StreamEnd] = []
        self.raises: BaseException | None = None
        self.reads = False
        """Also what was read already."""

    @property
    def end(self) -> StreamEnd:
        (end,) = self.ended
        return end

    def handle(self, request: APIRequest, call_next: CallNext) -> APIResponse[Any]:
        response = call_next(request)
        if response.status_code == 200 and (self.reads or not response.is_closed):
            watch_sync(response.http_response, Watched(self, request, call_next), Clock(), **self._options())
        return response

    async def handle_async(self, request: APIRequest, call_next: AsyncCallNext) -> AsyncAPIResponse[Any]:
        response = await call_next(request)
        if response.status_code == 200 and (self.reads or not response.is_closed):
            watch_async(response.http_response, AsyncWatched(self, request, call_next), Clock(), **self._options())
        return response

    def asked(self, end: StreamEnd) -> bool:
        self.failed.append(end)
        if self.raises is not None:
            raise self.raises
        self.left -= 1
        return self.left >= 0

    def _options(self) -> dict[str, Any]:
        deadline_us = None if self.deadline_s is None else Clock().now_us() + round(self.deadline_s * 1e6)
        return {"deadline_us": deadline_us, "keep_bytes": self.keep_bytes, "expects": self.expects}


class Watched:
    def __init__(self, watching: Watching, request: APIRequest, call_next: CallNext) -> None:
        self.watching, self.request, self.call_next = watching, request, call_next

    def again(self, end: StreamEnd) -> httpx2.Response | None:
        return self.call_next(self.request).http_response if self.watching.asked(end) else None

    def ended(self, end: StreamEnd) -> None:
        self.watching.ended.append(end)


class AsyncWatched:
    def __init__(self, watching: Watching, request: APIRequest, call_next: AsyncCallNext) -> None:
        self.watching, self.request, self.call_next = watching, request, call_next

    async def again(self, end: StreamEnd) -> httpx2.Response | None:
        return (await self.call_next(self.request)).http_response if self.watching.asked(end) else None

    def ended(self, end: StreamEnd) -> None:
        self.watching.ended.append(end)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeAnthropic]:
    with fake_anthropic_thread() as fake:
        yield fake


@pytest.fixture
def fake(server: FakeAnthropic) -> FakeAnthropic:
    server.play([GOOD.model_copy(update={"times": 10})])
    return server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    """One connection: whoever does not give it back is the last to get one."""
    async with httpx2.AsyncClient(limits=httpx2.Limits(max_connections=1), timeout=5) as client:
        yield client


@pytest.fixture(scope="module")
def sync_http() -> Iterator[httpx2.Client]:
    with httpx2.Client(limits=httpx2.Limits(max_connections=1), timeout=5) as client:
        yield client


class Side:
    """A kind of client; what a test does, it does with both."""

    def __init__(
        self, fake: FakeAnthropic, http: httpx2.AsyncClient, sync_http: httpx2.Client, *, is_async: bool
    ) -> None:
        self.fake, self.http, self.sync_http, self.is_async = fake, http, sync_http, is_async

    def client(self, *middleware: Middleware, **options: Any) -> Any:
        kind: Any = anthropic.AsyncAnthropic if self.is_async else anthropic.Anthropic
        options = {"http_client": self.http if self.is_async else self.sync_http, **options}
        return kind(base_url=self.fake.url, api_key="k", max_retries=0, middleware=middleware, **options)

    def mocked(self, answer: Callable[[httpx2.Request], httpx2.Response]) -> Any:
        kind: Any = httpx2.AsyncClient if self.is_async else httpx2.Client
        return kind(transport=httpx2.MockTransport(answer))

    async def done(self, result: Any) -> Any:
        return await result if inspect.isawaitable(result) else result

    async def each(self, items: Any) -> AsyncIterator[Any]:
        if self.is_async:
            async for item in items:
                yield item
        else:
            for item in items:
                yield item

    @asynccontextmanager
    async def within(self, context: Any) -> AsyncIterator[Any]:
        if self.is_async:
            async with context as entered:
                yield entered
        else:
            with context as entered:
                yield entered

    async def message(self, *middleware: Middleware) -> Any:
        async with self.within(self.client(*middleware).messages.stream(**ASK)) as stream:
            return await self.done(stream.get_final_message())

    async def events(self, *middleware: Middleware, **options: Any) -> list[Any]:
        stream = await self.done(self.client(*middleware, **options).messages.create(**ASK, stream=True))
        return [event async for event in self.each(stream)]


@pytest.fixture(params=["async", "sync"])
def side(
    request: pytest.FixtureRequest, fake: FakeAnthropic, http: httpx2.AsyncClient, sync_http: httpx2.Client
) -> Side:
    return Side(fake, http, sync_http, is_async=request.param == "async")


@pytest.fixture
def async_side(fake: FakeAnthropic, http: httpx2.AsyncClient, sync_http: httpx2.Client) -> Side:
    return Side(fake, http, sync_http, is_async=True)


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


def faults(*lists: list[tuple[Step, Failure]]) -> Any:
    pairs = [pair for each in lists for pair in each]
    names = [f"{step.fault} {step.error_type or ''}".strip() for step, _ in pairs]
    return pytest.mark.parametrize(("step", "failure"), pairs, ids=names)


async def outcome(side: Side, *middleware: Middleware, **options: Any) -> Any:
    try:
        return await side.events(*middleware, **options)
    except Exception as error:
        return error


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


async def test_the_end_tells_the_answer_its_bytes_and_their_digest(side: Side) -> None:
    watching = Watching(keep_bytes=100_000)
    stream = side.client(watching).messages.with_streaming_response.create(**ASK, stream=True)
    async with side.within(stream) as response:
        handed_out = b"".join([chunk async for chunk in side.each(response.iter_bytes())])
    end = watching.end
    assert end.body == handed_out
    assert (end.sha256, end.size_bytes) == (sha256(handed_out).hexdigest(), len(handed_out))
    assert (end.answer.model, end.answer.stop_reason) == (ASK["model"], "end_turn")
    assert end.answer.usage == Usage(11, 7, cache_write_tokens=3, cache_read_tokens=5, service_tier="standard")
    assert end.answer.response_id in handed_out.decode()
    assert end.first_token_us <= end.ended_us


async def test_a_body_larger_than_what_may_be_kept_is_not_kept_in_part(side: Side) -> None:
    await side.message(watching := Watching(keep_bytes=1_000))
    assert watching.end.size_bytes > 1_000
    assert watching.end.body is None


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


async def test_what_fails_after_message_stop_fails_nobody(side: Side, fake: FakeAnthropic) -> None:
    fake.play([Step(fault=Fault.RESET_IN_BODY, after_deltas=1_000_000)])
    assert isinstance(await outcome(side, watching := Watching()), list)
    assert watching.end.how is How.COMPLETED


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


async def test_a_read_timeout_before_the_first_delta_asks_again(side: Side, fake: FakeAnthropic) -> None:
    fake.play([GOOD.model_copy(update={"chunk_delay_s": 0.5}), GOOD])
    await side.events(watching := Watching(), timeout=0.1)
    assert [end.failure for end in watching.failed] == [Failure.TIMEOUT]
    assert isinstance(watching.failed[0].error, httpx2.ReadTimeout)
    assert watching.end.how is How.COMPLETED


async def test_no_stream_outlives_the_deadline(side: Side, fake: FakeAnthropic) -> None:
    fake.play([GOOD.model_copy(update={"chunk_delay_s": 0.02, "text": "word " * 1_000}), GOOD])
    error = await outcome(side, watching := Watching(deadline_s=0.3))
    assert isinstance(error, DeadlineExceeded)
    assert "req_fake_000000" in str(error)
    assert (watching.end.how, watching.end.failure) == (How.FAILED, Failure.DEADLINE)
    assert watching.end.delivered
    await side.message(Watching())


async def test_the_deadline_ends_the_wait_for_a_chunk(side: Side, fake: FakeAnthropic) -> None:
    fake.play([GOOD.model_copy(update={"chunk_delay_s": 1.0, "text": "word " * 1_000}), GOOD])
    started = time.monotonic()
    error = await outcome(side, watching := Watching(deadline_s=0.3))
    assert isinstance(error, DeadlineExceeded)
    assert time.monotonic() - started < 0.9
    assert (watching.end.how, watching.end.failure) == (How.FAILED, Failure.DEADLINE)
    await side.message(Watching())


@pytest.mark.parametrize("deltas", [0, 2], ids=["before the first delta", "after it"])
async def test_a_body_without_a_length_that_the_deadline_cuts_does_not_pass_for_one_that_ended(deltas: int) -> None:
    """HTTP/1.0: the end of the connection is the end of the body."""
    came = b"".join(framed(event) for event in EVENTS[: 3 + deltas])
    over = Event()

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + came)
            over.wait(timeout=20)

    watching = Watching(again=0, deadline_s=0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = asyncio.create_task(asyncio.to_thread(serve, listener))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        client = anthropic.Anthropic(base_url=url, api_key="k", max_retries=0, middleware=[watching])
        with pytest.raises(DeadlineExceeded):
            await asyncio.to_thread(lambda: list(client.messages.create(**ASK, stream=True)))
        over.set()
        await server
    assert (watching.end.failure, watching.failed) == (Failure.DEADLINE, [])


@pytest.mark.parametrize("deltas", [0, 1], ids=["before the first delta", "after it"])
async def test_the_deadline_ends_an_async_wait_for_a_chunk_and_leaves_the_task_uncancelled(
    async_side: Side, fake: FakeAnthropic, deltas: int
) -> None:
    hanging = [framed(event) for event in EVENTS[: 3 + deltas]]

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Hanging(hanging))

    watching = Watching(deadline_s=0.1)
    error = await outcome(async_side, watching, http_client=async_side.mocked(answer))
    assert isinstance(error, DeadlineExceeded)
    assert (watching.end.how, watching.end.failure) == (How.FAILED, Failure.DEADLINE)
    assert watching.end.delivered == bool(deltas)
    assert not watching.failed
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_a_deadline_that_is_kept_disturbs_nobody(side: Side) -> None:
    await side.message(watching := Watching(deadline_s=30))
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


async def test_every_way_to_read_a_stream_works_as_without_a_watcher(side: Side, fake: FakeAnthropic) -> None:
    async def lines(*middleware: Middleware) -> list[str]:
        client = side.client(*middleware)
        async with side.within(client.messages.with_streaming_response.create(**ASK, stream=True)) as response:
            return [line async for line in side.each(response.iter_lines())]

    async def text(*middleware: Middleware) -> str:
        client = side.client(*middleware)
        async with side.within(client.messages.with_streaming_response.create(**ASK, stream=True)) as response:
            return "".join([text async for text in side.each(response.iter_text(chunk_size=7))])

    async def parsed(*middleware: Middleware) -> list[Any]:
        response = await side.done(side.client(*middleware).messages.with_raw_response.create(**ASK, stream=True))
        return [event.type async for event in side.each(await side.done(response.parse()))]

    async def words(*middleware: Middleware) -> list[str]:
        async with side.within(side.client(*middleware).messages.stream(**ASK)) as stream:
            words = [text async for text in side.each(stream.text_stream)]
            assert stream.current_message_snapshot.usage.output_tokens == 7
            assert stream.response.elapsed is not None
            return words

    for read in (lines, text, parsed, words):
        bare, watched = await read(), await read(watching := Watching(deadline_s=30))
        assert watched == bare, read
        assert watching.end.how is How.COMPLETED, read


async def test_the_sdks_own_span_still_ends_with_its_stream(side: Side, fake: FakeAnthropic) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    traced = {"open_telemetry": {"tracer_provider": provider}}
    fake.play([OVERLOADED, GOOD, Step(fault=Fault.NO_MESSAGE_STOP, after_deltas=1)])
    await side.events(Watching(), **traced)
    with pytest.raises(anthropic.APIConnectionError):
        await side.events(Watching(), **traced)
    good, failed = spans.get_finished_spans()
    assert good.status.status_code is StatusCode.OK
    assert good.attributes["gen_ai.usage.output_tokens"] == 7
    assert good.attributes["gen_ai.response.time_to_first_chunk"] > 0
    assert (failed.status.status_code, failed.attributes["error.type"]) == (StatusCode.ERROR, "connection_error")


async def test_an_encoded_stream_is_watched_and_handed_out_decoded(side: Side) -> None:
    frames = [framed(event) for event in EVENTS]
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    packed = [packer.compress(frame) + packer.flush(zlib.Z_SYNC_FLUSH) for frame in frames] + [packer.flush()]

    def answer(request: httpx2.Request) -> httpx2.Response:
        headers = {"content-type": "text/event-stream", "content-encoding": "gzip"}
        return httpx2.Response(200, headers=headers, stream=Chunks(packed))

    watching = Watching(keep_bytes=10_000)
    events = await side.events(watching, http_client=side.mocked(answer))
    assert events[-1].type == "message_stop"
    assert watching.end.body == b"".join(frames)
    assert watching.end.how is How.COMPLETED


async def test_a_batchs_results_are_watched_for_their_end_alone(side: Side, fake: FakeAnthropic) -> None:
    watching = Watching()
    watching.expects = Expected.OTHER
    batches = side.client(watching).messages.batches
    params = {"custom_id": "one", "params": ASK}
    batch = await side.done(batches.create(requests=[params, params | {"custom_id": "two"}]))
    results = await side.done(batches.results(batch.id))
    assert [result.custom_id async for result in side.each(results)] == ["one", "two"]
    end = watching.ended[-1]
    assert (end.how, end.sha256, end.delivered) == (How.COMPLETED, None, True)
    assert end.size_bytes > 0


async def test_a_whole_message_that_is_read_as_a_stream_tells_its_usage(side: Side) -> None:
    watching = Watching()
    watching.expects = Expected.MESSAGE
    async with side.within(side.client(watching).messages.with_streaming_response.create(**ASK)) as response:
        message = await side.done(response.parse())
    assert watching.end.answer.response_id == message.id
    assert watching.end.answer.usage.output_tokens == 7
    assert watching.end.body is None


async def test_a_mocked_answer_that_was_read_already_is_told_at_once(side: Side) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        content = b"".join(framed(event) for event in EVENTS)
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=content)

    watching = Watching()
    watching.reads = True
    events = await side.events(watching, http_client=side.mocked(answer))
    assert len(events) == len(EVENTS) - 1  # but for the ping
    assert (watching.end.how, watching.end.answer.usage.output_tokens) == (How.COMPLETED, 2)


class Hanging(httpx2.AsyncByteStream):
    """Sends these and then nothing."""

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self.chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk
        await asyncio.Event().wait()


class Chunks(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body of both kinds, in these pieces."""

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self.chunks = chunks
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        yield from self.chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


EVENTS: list[dict[str, Any]] = [
    {
        "type": "message_start",
        "message": {"type": "message", "id": "msg_1", "model": "m", "content": [], "usage": {"input_tokens": 3}},
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "two"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " words"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
]


def framed(event: Mapping[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
