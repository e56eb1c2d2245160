"""What the core of a call asks its driver to do, and where the driver puts what came of it."""

from collections.abc import Generator
from typing import Any

import httpx2
from anthropic import APIRequest, APIResponse, AsyncAPIResponse, AsyncCallNext, CallNext

from relight.engine.guard.calls.alarms import Alarm
from relight.engine.guard.streams.watching import Expected, StreamEnd

AnyResponse = APIResponse[Any] | AsyncAPIResponse[Any]
CallAny = CallNext | AsyncCallNext


class Send(Alarm):
    """One attempt: `call_next(request)`, and where `parses`, parsing the answer, all until `until_us`.

    The driver fills in `response` or `error`; `parsed`, or `unparsed` with why it could not be. It `fired` where the
    deadline ended it. What is None or False for most of them is so by the class: to set it for each one costs a call
    more than its breaker does.
    """

    response: AnyResponse | None = None
    http: httpx2.Response | None = None
    whole = False
    parsed: object = None
    unparsed: Exception | None = None
    error: Exception | None = None

    def __init__(
        self, request: APIRequest, call_next: CallAny, started_us: int, until_us: int, *, parses: bool
    ) -> None:
        self.request = request
        self.call_next = call_next
        self.started_us = started_us
        self.until_us = until_us
        self.parses = parses
        self.left_s = (until_us - started_us) / 1_000_000

    def came(self, response: AnyResponse) -> bool:
        """Takes what `call_next` returned; True where it is to be parsed now."""
        self.response = response
        http: object = getattr(response, "http_response", response)
        if not isinstance(http, httpx2.Response):
            self.whole = True  # a middleware inside has answered in its own way
            return False
        self.http = http
        self.whole = whole = http.is_closed
        return whole and self.parses and 200 <= http.status_code < 300


class Pause:
    """Nothing is done for so long."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Release:
    """An answer that is not handed out is closed, so that its connection is free again."""

    __slots__ = ("response",)

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response


class HandOut:
    """A stream is handed out, to be watched; with `nothing`, what is left of one that failed, for want of another.

    The core goes on when reading it failed before its first delta, or is `over`; `end` tells how.
    """

    __slots__ = ("end", "expects", "nothing", "over", "sent")

    def __init__(self, sent: Send, expects: Expected, *, nothing: bool = False) -> None:
        self.sent = sent
        self.expects = expects
        self.nothing = nothing
        self.end: StreamEnd | None = None
        self.over = False

    def take(self) -> AnyResponse:
        """The answer, of which the core keeps nothing: one that the caller drops has to be noticed at once."""
        response, self.sent.response, self.sent.http = self.sent.response, None, None
        assert response is not None
        return response


Step = Send | Pause | Release | HandOut
Steps = Generator[Step, None, AnyResponse | None]
