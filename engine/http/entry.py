"""What stands before the API: answers while the service starts, and lets go of clients while it stops."""

from collections.abc import MutableMapping
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relight.engine.health.readiness import Phase, Readiness

PROBES = ("/health", "/readyz", "/startupz")
LIVE = "/livez"
RETRY_AFTER_S = 1


class Entry:
    """An ASGI application around the API, which `open` gives it once all that it answers from is there.

    Until then the probes answer with what is waited for, everything else with 503. While draining, /readyz says no, and
    every answer asks the client to close its connection.
    """

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self._app: ASGIApp | None = None

    def open(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        draining = self._readiness.phase is Phase.DRAINING
        path = scope["path"]
        if self._app is None or (draining and path == "/readyz"):
            await _answer(send, *self._said(path), head=scope["method"] == "HEAD", close=draining)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and self._readiness.phase is Phase.DRAINING:
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        await self._app(scope, receive, sending)

    def _said(self, path: str) -> tuple[int, str, dict[str, object]]:
        reason = self._readiness.reason
        if path == LIVE:
            return 200, "application/health+json", {"status": "pass"}
        if path in PROBES:
            return 503, "application/health+json", {"status": "fail", "output": reason}
        problem = {"type": "about:blank", "title": "Service Unavailable", "status": 503, "detail": reason}
        return 503, "application/problem+json", problem


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
