"""uvicorn's protocol with bounds on what a client may send and how long it may take."""

import asyncio
from typing import Any, cast

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from relight.engine.http.draining import KEY, Draining
from relight.engine.problems import KINDS, MEDIA_TYPE, document

MAX_URL_BYTES = 8_192
MAX_HEADER_BYTES = 32_768
CHECK_S = 1.0
"""How often a connection is looked at; no timer is made and cancelled for each request."""
STALLED_S = 30.0
"""A client that takes nothing of an answer for so long is cut off."""


class Refusal(Exception):  # it never leaves the parser's callbacks
    """Ends the parsing of a request."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class BoundedProtocol(HttpToolsProtocol):
    """Refuses with problems what never becomes a request; `bounded` gives it its bounds."""

    max_connections = 2_000
    receive_s = 20.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self.draining = Draining()
        self._receiving_since: float | None = self.loop.time()
        self._stalled_since: float | None = None
        self._head_bytes = 0
        self._in_head = True
        self._refused: Refusal | None = None
        self._check_timer = self.loop.call_later(CHECK_S, self._check)
        if len(self.connections) > self.max_connections:
            self._refuse("unavailable", "there are too many connections: ask again later")

    def connection_lost(self, exc: Exception | None) -> None:
        self._check_timer.cancel()
        self.draining.begin()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        self.draining.begin()
        super().shutdown()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._receiving_since is None and self._in_head:
            self._receiving_since = self.loop.time()  # the first byte after a pause
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEADER_BYTES:
            self._refuse("headers-too-large", f"a request's line and headers have at most {MAX_HEADER_BYTES} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._receiving_since is None:
            self._receiving_since = self.loop.time()  # pipelined: its first byte came with the request before
        cast(dict[str, Any], self.scope)[KEY] = self.draining

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            self._refused = Refusal("uri-too-long", f"an address has at most {MAX_URL_BYTES} bytes")
            raise self._refused

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes = False, 0
        if sum(len(name) + len(value) for name, value in self.headers) > MAX_HEADER_BYTES:
            self._refused = Refusal("headers-too-large", f"headers have at most {MAX_HEADER_BYTES} bytes")
            raise self._refused
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head, self._receiving_since = True, None
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls for whatever cannot be parsed."""
        if self._refused is not None:
            self._refuse(self._refused.kind, str(self._refused))
        else:
            self._refuse("malformed", "this is no HTTP request")

    def pause_writing(self) -> None:
        self._stalled_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stalled_since = None
        super().resume_writing()

    def _check(self) -> None:
        if self.transport.is_closing():
            return
        now = self.loop.time()
        if self._stalled_since is not None and now - self._stalled_since > STALLED_S:
            self.transport.abort()
        elif self._receiving_since is not None and now - self._receiving_since > self.receive_s:
            self._too_slow(now - self._receiving_since)
        self._check_timer = self.loop.call_later(CHECK_S, self._check)

    def _too_slow(self, took_s: float) -> None:
        """In the head, nobody else would say so; in the body, who reads it has the first word."""
        cycle = cast(RequestResponseCycle | None, self.cycle)  # uvicorn says never None, and begins with it
        answered = cycle is None or cycle.response_complete
        if self._in_head and answered:
            self._refuse("too-slow", f"the request did not arrive within {self.receive_s:g} s: send it faster")
        elif answered or took_s > self.receive_s + 2 * CHECK_S:
            self.transport.abort()

    def _refuse(self, kind: str, detail: str) -> None:
        """Answers without the application, and closes."""
        body = orjson.dumps(document(kind, detail))
        head = [
            STATUS_LINE[KINDS[kind].status],
            b"content-type: ",
            MEDIA_TYPE.encode(),
            b"\r\ncontent-length: %d\r\nx-content-type-options: nosniff\r\ncache-control: no-store\r\n" % len(body),
            b"connection: close\r\n\r\n",
        ]
        self.transport.write(b"".join([*head, body]))
        self.transport.close()


def bounded(*, max_connections: int, receive_s: float) -> type[HttpToolsProtocol]:
    """The protocol with these bounds; uvicorn takes a class."""
    return type("BoundedProtocol", (BoundedProtocol,), {"max_connections": max_connections, "receive_s": receive_s})
