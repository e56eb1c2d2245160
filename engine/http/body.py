"""Reads a request's body: no more than is allowed, and no longer than is allowed."""

import asyncio

from starlette.requests import ClientDisconnect, Request

from relight.engine.errors import RequestRefused

MAX_BODY_BYTES = 1 << 20


async def read_body(request: Request, *, within_s: float) -> bytes:
    """The whole body. Raises `RequestRefused`: too large, or too slow; `ClientDisconnect` when nobody waits any more.

    What is too large is noticed by its announced length, else as soon as it is: never more than a megabyte is held.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > MAX_BODY_BYTES:
        raise _too_large()
    parts, size = [], 0
    try:
        async with asyncio.timeout(within_s):
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                part = message.get("body", b"")
                size += len(part)
                if size > MAX_BODY_BYTES:
                    raise _too_large()
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise RequestRefused(
            "too-slow",
            f"the body did not arrive within {within_s:g} s: send it faster, or in parts",
            headers={"Connection": "close"},
        ) from None


def _too_large() -> RequestRefused:
    return RequestRefused(
        "too-large", f"a body has at most {MAX_BODY_BYTES} bytes: send fewer events at once, and put bulk into content"
    )
