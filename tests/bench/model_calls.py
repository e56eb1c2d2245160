"""Calls of a model that cost nothing but what the SDK itself takes: the transport has the answer ready."""

from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from types import coroutine
from typing import Any

import anthropic
import httpx2
import orjson
from anthropic import APIRequest, Middleware

MODEL = "claude-opus-4-8"
ASK: dict[str, Any] = {
    "model": MODEL,
    "max_tokens": 1024,
    "system": "You answer questions about orders. " * 20,
    "messages": [{"role": "user", "content": "Where is order 991? " * 20}],
}
ANSWER: dict[str, Any] = {
    "id": "msg_bench",
    "type": "message",
    "role": "assistant",
    "model": MODEL,
    "content": [{"type": "text", "text": "It left the warehouse this morning. " * 10}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 250, "output_tokens": 80, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0},
}
HEADERS = {"content-type": "application/json", "request-id": "req_bench"}
_BODY = orjson.dumps(ANSWER)


def client(*, middleware: Sequence[Middleware] = ()) -> anthropic.Anthropic:
    http = httpx2.Client(transport=httpx2.MockTransport(_answer))
    return anthropic.Anthropic(api_key="k", max_retries=0, http_client=http, middleware=middleware)


def async_client(*, middleware: Sequence[Middleware] = ()) -> anthropic.AsyncAnthropic:
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(_answer))
    return anthropic.AsyncAnthropic(api_key="k", max_retries=0, http_client=http, middleware=middleware)


def _answer(request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(200, headers=HEADERS, content=_BODY)


class _Seen(Middleware):
    """What a middleware is handed, and gets."""

    def __init__(self) -> None:
        self.request: APIRequest | None = None
        self.response: Any = None

    def handle(self, request: APIRequest, call_next: Callable[[APIRequest], Any]) -> Any:
        self.request, self.response = request, call_next(request)
        return self.response

    async def handle_async(self, request: APIRequest, call_next: Callable[[APIRequest], Any]) -> Any:
        self.request, self.response = request, await call_next(request)
        return self.response


def bare_call() -> tuple[APIRequest, Callable[[APIRequest], Any]]:
    """A request as a middleware gets it, and a `call_next` that has its answer ready."""
    seen = _Seen()
    made = client(middleware=[seen])
    made.messages.create(**ASK)
    assert seen.request is not None
    return seen.request, _closed_over(made, seen.response)


async def async_bare_call(*, waits: bool = False) -> tuple[APIRequest, Callable[[APIRequest], Any]]:
    """`waits`: once, as for a server; whoever drives the coroutine lets it go on."""
    seen = _Seen()
    made = async_client(middleware=[seen])
    await made.messages.create(**ASK)
    assert seen.request is not None
    return seen.request, (_waiting if waits else _async_closed_over)(made, seen.response)


def _closed_over(self: anthropic.Anthropic, response: Any) -> Callable[[APIRequest], Any]:
    """As the SDK's own last link, it holds its client by the name of `self`: a guard looks for it there."""

    def call_next(request: APIRequest) -> Any:
        assert self is not None
        return response

    return call_next


def _async_closed_over(self: anthropic.AsyncAnthropic, response: Any) -> Callable[[APIRequest], Any]:
    async def call_next(request: APIRequest) -> Any:
        assert self is not None
        return response

    return call_next


def _waiting(self: anthropic.AsyncAnthropic, response: Any) -> Callable[[APIRequest], Any]:
    async def call_next(request: APIRequest) -> Any:
        assert self is not None
        await _once()
        return response

    return call_next


@coroutine
def _once() -> Generator[None, None, None]:
    yield


def events(deltas: int) -> Iterator[bytes]:
    """A streamed answer, each event as it stands on the wire."""
    begun = {**ANSWER, "content": [], "stop_reason": None}
    yield _framed({"type": "message_start", "message": begun})
    yield _framed({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    yield _framed({"type": "ping"})
    for number in range(deltas):
        delta = {"type": "text_delta", "text": f" word{number} and"}
        yield _framed({"type": "content_block_delta", "index": 0, "delta": delta})
    yield _framed({"type": "content_block_stop", "index": 0})
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    yield _framed({"type": "message_delta", "delta": ended, "usage": {"output_tokens": 2 * deltas}})
    yield _framed({"type": "message_stop"})


def _framed(event: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event))


class Chunks(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body in these pieces, for either kind of client."""

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self.chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        yield from self.chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk
