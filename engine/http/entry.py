"""What stands before the API: answers while the service starts, and lets go of clients while it stops."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relight.engine.health.readiness import Phase, Readiness

PROBES = ("/health", "/readyz", "/startupz")
LIVE = "/livez"
RETRY_AFTER_S = 1
EVENT_STREAM = b"text/event-stream"


class Entry:
    """An ASGI application around the API, which `open` gives it once all that it answers from is there.

    Until then the probes answer with what is waited for, everything else with 503. While draining, /readyz says no,
    every answer asks the client to close its connection, and `end_streams` ends event streams as if they were over.
    """

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self._app: ASGIApp | None = None
        self._streams: set[_Stream] = set()

    def open(self, app: ASGIApp) -> None:
        self._app = app

    def end_streams(self) -> None:
        """Each gets the end of its answer between two events; its client connects anew, to another process."""
        for stream in list(self._streams):
            stream.end()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        draining = self._readiness.phase is Phase.DRAINING
        path = scope["path"]
        if self._app is None or (draining and path == "/readyz"):
            await _answer(send, *self._said(path), head=scope["method"] == "HEAD", close=draining)
            return
        stream = _Stream(send, self._readiness)
        self._streams.add(stream)
        try:
            await stream.run(self._app, scope, receive)
        finally:
            self._streams.discard(stream)

    def _said(self, path: str) -> tuple[int, str, dict[str, object]]:
        reason = self._readiness.reason
        if path == LIVE:
            return 200, "application/health+json", {"status": "pass"}
        if path in PROBES:
            return 503, "application/health+json", {"status": "fail", "output": reason}
        problem = {"type": "about:blank", "title": "Service Unavailable", "status": 503, "detail": reason}
        return 503, "application/problem+json", problem


class _Stream:
    """One request under way, which may turn out to be an event stream."""

    def __init__(self, send: Send, readiness: Readiness) -> None:
        self._send = send
        self._readiness = readiness
        self._task = asyncio.current_task()
        self._open = False
        self._ended = False

    def end(self) -> None:
        if self._open and not self._ended and self._task is not None:
            self._ended = True
            self._task.cancel()

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive) -> None:
        try:
            await app(scope, receive, self.send)
        except asyncio.CancelledError:
            if not self._ended or self._task is None:
                raise
            self._task.uncancel()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            self._open = any(name.lower() == b"content-type" and EVENT_STREAM in value for name, value in headers)
            if self._readiness.phase is Phase.DRAINING:
                message = {**message, "headers": [*headers, (b"connection", b"close")]}
        elif not message.get("more_body", False):
            self._open = False
        await self._send(message)


async def _answer(
    send: Send,
    status: int,
    media_type: str,
    body: MutableMapping[str, Any] | dict[str, object],
    *,
    head: bool,
    close: bool,
) -> None:
    content = orjson.dumps(body)
    headers = [
        (b"content-type", media_type.encode()),
        (b"content-length", str(len(content)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if status == 503:
        headers.append((b"retry-after", str(RETRY_AFTER_S).encode()))
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else content})
