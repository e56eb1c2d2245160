"""Watched streams that work: what each way to read them gives, and what is told of their answers."""

import zlib
from hashlib import sha256
from typing import Any

import anthropic
import httpx2
import pytest
import watched
from anthropic import Middleware
from guarding import ASK
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from watched import EVENTS, GOOD, OVERLOADED, Body, Side, Watching, framed

from relight.engine.fake.server import FakeAnthropic
from relight.engine.fake.steps import Fault, Step
from relight.engine.guard.facts import Usage
from relight.engine.guard.streams.streams import Expected
from relight.engine.guard.streams.watching import How

pytestmark = pytest.mark.asyncio(loop_scope="module")
ground, fake, side = watched.ground, watched.fake, watched.side


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
        return httpx2.Response(200, headers=headers, stream=Body(packed))

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
