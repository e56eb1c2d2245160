"""What tests of watched streams share: a middleware that watches, and both kinds of client as one."""

import inspect
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import httpx2
import pytest
import pytest_asyncio
from anthropic import Middleware
from anthropic._middleware import AsyncCallNext, CallNext
from anthropic._request import APIRequest
from anthropic._response import APIResponse, AsyncAPIResponse
from guarding import ASK

from relight.engine.clock import Clock
from relight.engine.fake.server import FakeAnthropic, fake_anthropic_thread
from relight.engine.fake.steps import Fault, Step
from relight.engine.guard.facts import Failure
from relight.engine.guard.streams.streams import Expected, watch_async, watch_sync
from relight.engine.guard.streams.watching import StreamEnd

GOOD = Step(text="all is well", input_tokens=11, output_tokens=7, cache_read_tokens=5, cache_write_tokens=3)
OVERLOADED = Step(fault=Fault.ERROR_EVENT, error_type="overloaded_error")


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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground() -> AsyncIterator[Side]:
    """What the sides of a file share. A pool has one connection: who does not give it back is the last to get one."""
    one = httpx2.Limits(max_connections=1)
    with fake_anthropic_thread() as fake, httpx2.Client(limits=one, timeout=5) as sync_http:
        async with httpx2.AsyncClient(limits=one, timeout=5) as http:
            yield Side(fake, http, sync_http, is_async=True)


@pytest.fixture
def fake(ground: Side) -> FakeAnthropic:
    ground.fake.play([GOOD.model_copy(update={"times": 10})])
    return ground.fake


@pytest.fixture(params=["async", "sync"])
def side(request: pytest.FixtureRequest, ground: Side, fake: FakeAnthropic) -> Side:
    return Side(fake, ground.http, ground.sync_http, is_async=request.param == "async")


@pytest.fixture
def async_side(ground: Side, fake: FakeAnthropic) -> Side:
    return ground


def faults(*lists: list[tuple[Step, Failure]]) -> Any:
    pairs = [pair for each in lists for pair in each]
    names = [f"{step.fault} {step.error_type or ''}".strip() for step, _ in pairs]
    return pytest.mark.parametrize(("step", "failure"), pairs, ids=names)


async def outcome(side: Side, *middleware: Middleware, **options: Any) -> Any:
    try:
        return await side.events(*middleware, **options)
    except Exception as error:
        return error


class Body(httpx2.SyncByteStream, httpx2.AsyncByteStream):
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
