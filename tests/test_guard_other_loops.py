"""Guarded async clients in a loop that is not asyncio's."""

import types
from collections.abc import Generator
from typing import Any

import anthropic
import httpx2
import pytest
import sniffio
from anthropic._base_client import get_platform
from guarding import ASK, NOON, TLS, idle_recorder

from relight.engine.clock import ScriptedClock
from relight.engine.errors import GuardError
from relight.engine.guard.guard import Guard


class Waiting(httpx2.AsyncBaseTransport):
    """Waits as trio's sockets do: for a trap that only their own loop knows."""

    def __init__(self) -> None:
        self.requests = self.left = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests += 1
        try:
            await _trap()
        finally:
            self.left += 1
        raise AssertionError("nobody goes on with it")


@types.coroutine
def _trap() -> Generator[object, Any, None]:
    yield object()


def run_elsewhere(coroutine: Any) -> Any:
    """As trio would, up to the first wait."""
    token = sniffio.current_async_library_cvar.set("trio")
    try:
        return coroutine.send(None)
    finally:
        coroutine.close()
        sniffio.current_async_library_cvar.reset(token)


def test_under_another_loop_than_asyncios_the_first_call_says_what_to_do() -> None:
    transport = Waiting()
    with idle_recorder(ScriptedClock(NOON)) as recorder:
        http = httpx2.AsyncClient(transport=transport, verify=TLS)
        client = anthropic.AsyncAnthropic(
            api_key="sk-secret", max_retries=0, middleware=[Guard(recorder)], http_client=http
        )
        client._platform = get_platform()  # the SDK would look it up in a thread of trio's, which is not installed
        with pytest.raises(GuardError, match=r"needs asyncio's loop.*call a sync client in a thread"):
            run_elsewhere(client.messages.create(**ASK))
    assert (transport.requests, transport.left) == (0, 0), "it says so before anything is sent"
