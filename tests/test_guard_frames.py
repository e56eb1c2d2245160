"""However the bytes of a streamed answer are cut into chunks, the same is seen in them, told of them and handed out."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any

import httpx2
import pytest
from anthropic._streaming import SSEDecoder
from anthropic.lib.bedrock._stream_decoder import AWSEventStreamDecoder
from hypothesis import given, settings
from hypothesis import strategies as st
from watched import Body

from relight.engine.clock import Clock
from relight.engine.fake.asked import Api
from relight.engine.fake.framing import aws_message, error_frame, raw_frame
from relight.engine.guard.facts import Failure, Usage
from relight.engine.guard.streams.eventstream import EventStreamFrames
from relight.engine.guard.streams.frames import PLAIN_EVENTS, Frame, Frames, FramesBroken
from relight.engine.guard.streams.sse import SseFrames
from relight.engine.guard.streams.streams import watch_async, watch_sync
from relight.engine.guard.streams.watching import How, StreamEnd

ENDS = (b"\n", b"\r\n", b"\r")
LINES = st.sampled_from(
    [
        b"event: content_block_delta",
        b"event:content_block_delta",
        b"event: message_stop",
        b"event: error",
        b"event",
        b'data: {"type": "content_block_delta"}',
        b"data:  two spaces, colon: within",
        b"data",
        b": a comment",
        b":",
        b"id: 7",
        b"retry: 10",
        b"unknown: field",
        "data: Größe".encode(),
        b"",
        b"",
        b"",
    ]
)
EVENTS: list[dict[str, Any]] = [
    {
        "type": "message_start",
        "message": {"type": "message", "id": "msg_1", "model": "m", "usage": {"input_tokens": 3}},
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    *({"type": "content_block_delta", "index": 0, "delta": {"text": f"word{number}"}} for number in range(40)),
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
]
ERROR = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


def sse(event: Mapping[str, Any], end: str = "\n") -> bytes:
    return f"event: {event['type']}{end}data: {json.dumps(event)}{end}{end}".encode()


def aws(event: Mapping[str, Any]) -> bytes:
    return raw_frame(Api.BEDROCK, event["type"], json.dumps(event, separators=(",", ":")).encode())


@st.composite
def cut(draw: st.DrawFn, body: bytes) -> list[bytes]:
    """`body` in chunks, some of them perhaps empty."""
    places = sorted(draw(st.lists(st.integers(0, len(body)), max_size=60)))
    return [body[start:end] for start, end in zip([0, *places], [*places, len(body)], strict=True)]


def fed(frames: Frames, chunks: Sequence[bytes], *, skip: bool = False) -> list[Frame]:
    """Without those that say nothing, of which the SDK makes events only at times."""
    return [frame for chunk in chunks for frame in frames.feed(chunk, skip=skip) if any(frame)]


def telling(frames: Sequence[Frame]) -> list[Frame]:
    return [frame for frame in frames if frame.event not in PLAIN_EVENTS]


@given(st.data(), st.lists(st.tuples(LINES, st.sampled_from(ENDS)), max_size=40))
def test_server_sent_events_are_split_as_the_sdk_splits_them(
    data: st.DataObject, lines: list[tuple[bytes, bytes]]
) -> None:
    body = b"".join(line + end for line, end in lines)
    seen = SSEDecoder().iter_bytes(iter([body]))
    expected = [Frame(event.event or "", event.data.encode()) for event in seen if event.event or event.data]
    chunks = data.draw(cut(body))
    assert fed(SseFrames(), chunks) == expected
    assert telling(fed(SseFrames(), chunks, skip=True)) == telling(expected)


@given(st.data())
def test_event_streams_are_split_as_the_sdk_splits_them(data: st.DataObject) -> None:
    exception = error_frame(Api.BEDROCK, "overloaded_error", "Overloaded", "r")
    failed = {":message-type": "error", ":error-code": "InternalError", ":error-message": "no"}
    messages = [*map(aws, EVENTS[:5]), raw_frame(Api.BEDROCK, "x", b"no JSON"), exception, aws_message(failed, b"")]
    body = b"".join(data.draw(st.lists(st.sampled_from(messages), max_size=12)))
    seen = AWSEventStreamDecoder().iter_bytes(iter([body]))
    expected = [(event.event, json.loads(event.data)) for event in seen if event.event != "completion"]
    chunks = data.draw(cut(body))
    frames = fed(EventStreamFrames(), chunks)
    assert [(frame.event, json.loads(frame.data)) for frame in frames] == expected
    assert telling(fed(EventStreamFrames(), chunks, skip=True)) == telling(frames)


@given(st.data(), st.integers(0, 7))
def test_what_is_no_event_stream_is_said_after_the_frames_before_it(data: st.DataObject, place: int) -> None:
    good, bad = aws(EVENTS[0]), bytearray(aws(EVENTS[2]))
    bad[place] ^= 0x55
    frames: list[Frame] = []
    splitter = EventStreamFrames()
    try:
        for chunk in data.draw(cut(good + bytes(bad))):
            frames += splitter.feed(chunk)
    except FramesBroken as broken:
        frames += broken.frames
    else:
        pytest.fail("the checksum of the second message's prelude is wrong")
    assert [frame.event for frame in frames] == ["message_start"]


@pytest.mark.parametrize("make", [SseFrames, EventStreamFrames])
@given(data=st.data())
def test_no_bytes_break_a_splitter(data: st.DataObject, make: Callable[[], Frames]) -> None:
    bodies = [b"".join(map(framed, EVENTS[:4])) for framed in (sse, aws)]
    noise = st.binary(max_size=30)
    body = data.draw(st.one_of(noise, st.sampled_from(bodies).flatmap(lambda good: broken(good, noise))))
    splitter = make()
    with suppress(FramesBroken):
        for chunk in data.draw(cut(body)):
            splitter.feed(chunk, skip=data.draw(st.booleans()))


def broken(good: bytes, noise: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """With noise instead of some bytes in it."""
    places = st.integers(0, len(good))
    return st.builds(lambda at, over, bad: good[:at] + bad + good[at + over :], places, st.integers(0, 9), noise)


class Told:
    """Has these bodies to go on from."""

    def __init__(self, content_type: str, bodies: Sequence[Body] = ()) -> None:
        self.headers = {"content-type": content_type}
        self.bodies = list(bodies)
        self.failed: list[StreamEnd] = []
        self.ends: list[StreamEnd] = []

    def response(self, body: Body) -> httpx2.Response:
        request = httpx2.Request("POST", "http://localhost/v1/messages")
        return httpx2.Response(200, headers=self.headers, stream=body, request=request)

    def ended(self, end: StreamEnd) -> None:
        self.ends.append(end)


class SyncTold(Told):
    def again(self, end: StreamEnd) -> httpx2.Response | None:
        self.failed.append(end)
        return self.response(self.bodies.pop(0)) if self.bodies else None


class AsyncTold(Told):
    async def again(self, end: StreamEnd) -> httpx2.Response | None:
        self.failed.append(end)
        return self.response(self.bodies.pop(0)) if self.bodies else None


def read_sync(content_type: str, bodies: Sequence[Body]) -> tuple[bytes, Told]:
    told = SyncTold(content_type, bodies[1:])
    response = told.response(bodies[0])
    watch_sync(response, told, Clock(), keep_bytes=1_000_000)
    return b"".join(response.iter_bytes()), told


def read_async(content_type: str, bodies: Sequence[Body]) -> tuple[bytes, Told]:
    async def read() -> tuple[bytes, Told]:
        told = AsyncTold(content_type, bodies[1:])
        response = told.response(bodies[0])
        watch_async(response, told, Clock(), keep_bytes=1_000_000, deadline_us=Clock().now_us() + 60_000_000)
        return b"".join([chunk async for chunk in response.aiter_bytes()]), told

    return asyncio.run(read())


KINDS = pytest.mark.parametrize(
    ("content_type", "framed", "error"),
    [
        ("text/event-stream; charset=utf-8", lambda event: sse(event), sse(ERROR)),
        ("text/event-stream", lambda event: sse(event, "\r\n"), sse(ERROR, "\r\n")),
        ("text/event-stream", lambda event: b": hello\r\r" + sse(event, "\r"), sse(ERROR, "\r")),
        ("application/vnd.amazon.eventstream", aws, error_frame(Api.BEDROCK, "overloaded_error", "Overloaded", "r")),
    ],
    ids=["LF", "CRLF", "CR", "AWS"],
)


@KINDS
@pytest.mark.parametrize("read", [read_sync, read_async], ids=["sync", "async"])
@settings(max_examples=30)
@given(data=st.data())
def test_any_chunks_give_the_same_bytes_digest_and_usage(
    data: st.DataObject, content_type: str, framed: Any, error: bytes, read: Any
) -> None:
    early = b"".join(map(framed, EVENTS[:3])) + error
    whole = b"".join(map(framed, EVENTS))
    bodies = [Body(data.draw(cut(early))), Body(data.draw(cut(whole)))]
    handed_out, told = read(content_type, bodies)
    (failed,), (end,) = told.failed, told.ends
    assert handed_out == end.body == whole
    assert (end.sha256, end.size_bytes) == (sha256(whole).hexdigest(), len(whole))
    assert (end.how, end.failure, end.answer.usage) == (How.COMPLETED, None, Usage(input_tokens=3, output_tokens=2))
    assert (end.answer.response_id, end.answer.model, end.answer.stop_reason) == ("msg_1", "m", "end_turn")
    assert (failed.how, failed.failure, failed.delivered) == (How.FAILED, Failure.OVERLOADED, False)
    assert [body.closed for body in bodies] == [1, 1]


@KINDS
@pytest.mark.parametrize("read", [read_sync, read_async], ids=["sync", "async"])
@settings(max_examples=30)
@given(data=st.data())
def test_any_chunks_after_the_first_delta_are_handed_out_with_what_fails_among_them(
    data: st.DataObject, content_type: str, framed: Any, error: bytes, read: Any
) -> None:
    body = Body(data.draw(cut(whole := b"".join(map(framed, EVENTS[:20])) + error)))
    handed_out, told = read(content_type, [body])
    (end,) = told.ends
    assert handed_out == end.body == whole
    assert (end.how, end.failure, end.delivered, told.failed) == (How.FAILED, Failure.OVERLOADED, True, [])
    assert body.closed == 1
