"""Streamed responses under the guard's watch: what the SDK's clients get of them, and what is told of their end."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic
import httpx2
import pytest
import pytest_asyncio
from anthropic import Middleware
from anthropic._middleware import AsyncCallNext, CallNext
from anthropic._request import APIRequest
from anthropic._response import APIResponse, AsyncAPIResponse

from relight.engine.clock import Clock
from relight.engine.fake.server import FakeAnthropic, fake_anthropic_thread
from relight.engine.fake.steps import Fault, Step
from relight.engine.guard.facts import Failure
from relight.engine.guard.streams import Expected, watch_async, watch_sync
from relight.engine.guard.watching import How, StreamEnd

ASK: dict[str, Any] = {
    "model": "claude-opus-4-8",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "hello there"}],
}
GOOD = Step(text="all is well", input_tokens=11, output_tokens=7, cache_read_tokens=5, cache_write_tokens=3)
OVERLOADED = Step(fault=Fault.ERROR_EVENT, error_type="overloaded_error")
pytestmark = pytest.mark.asyncio(loop_scope="module")


class Watching(Middleware):
    """Watches each streamed response; asks again as often as it may. `ended` are the ends of calls, `failed` of attempts."""

    def __init__(self, again: int = 4, *, deadline_s: float | None = None, keep_bytes: int = 0) -> None:
        self.left = again
        self.deadline_s = deadline_s
        self.keep_bytes = keep_bytes
        self.expects = Expected.EVENTS
        self.failed: list[StreamEnd] = []
        self.ended: list[StreamEnd] = []
        self.raises: BaseException | None = None
        self.hangs = asyncio.Event()

    @property
    def end(self) -> StreamEnd:
        (end,) = self.ended
        return end

    def handle(self, request: APIRequest, call_next: CallNext) -> APIResponse[Any]:
        response = call_next(request)
        if response.status_code == 200 and not response.is_closed:
            watch_sync(response.http_response, Watched(self, request, call_next), Clock(), **self._options())
        return response

    async def handle_async(self, request: APIRequest, call_next: AsyncCallNext) -> AsyncAPIResponse[Any]:
        response = await call_next(request)
        if response.status_code == 200 and not response.is_closed:
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
    server.play([GOOD])
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


class Clients:
    """Both kinds, as one: everything a test does with a client it does with both."""

    def __init__(self, fake: FakeAnthropic, http: httpx2.AsyncClient, sync_http: httpx2.Client) -> None:
        self.fake, self.http, self.sync_http = fake, http, sync_http

    def of(self, watching: Watching) -> anthropic.AsyncAnthropic:
        return anthropic.AsyncAnthropic(
            base_url=self.fake.url, api_key="k", max_retries=0, middleware=[watching], http_client=self.http
        )

    def sync(self, watching: Watching) -> anthropic.Anthropic:
        return anthropic.Anthropic(
            base_url=self.fake.url, api_key="k", max_retries=0, middleware=[watching], http_client=self.sync_http
        )


@pytest.fixture
def clients(fake: FakeAnthropic, http: httpx2.AsyncClient, sync_http: httpx2.Client) -> Clients:
    return Clients(fake, http, sync_http)


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_smoke(clients: Clients, fake: FakeAnthropic, kind: str) -> None:
    fake.play([OVERLOADED, Step(fault=Fault.RESET_IN_BODY), Step(fault=Fault.NO_MESSAGE_STOP), GOOD])
    watching = Watching()
    if kind == "async":
        async with clients.of(watching).messages.stream(**ASK) as stream:
            message = await stream.get_final_message()
    else:
        with clients.sync(watching).messages.stream(**ASK) as sync_stream:
            message = sync_stream.get_final_message()
    assert message.content[0].text == "all is well"
    print(watching.failed)
    assert [end.failure for end in watching.failed] == [Failure.OVERLOADED, Failure.CONNECTION, Failure.TRUNCATED]
    print(watching.end)
    assert watching.end.how is How.COMPLETED
