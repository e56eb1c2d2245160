"""Waiting for a server's answer no longer than it can still come."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from nats.aio.client import Client
from nats.errors import ConnectionClosedError

LOOK_EVERY_S = 0.1

T = TypeVar("T")


async def answered(client: Client, asking: Coroutine[Any, Any, T], *, within_s: float) -> T:
    """What `asking` gives.

    nats-py lets a request that was under way when the connection was lost wait for its whole timeout, and does not
    count the time it waits for a connection. Raises `ConnectionClosedError` as soon as it was lost, and `TimeoutError`.
    """
    task = asyncio.ensure_future(asking)
    loop, reconnects = asyncio.get_running_loop(), client.stats["reconnects"]
    deadline = loop.time() + within_s
    try:
        while not task.done():
            await asyncio.wait([task], timeout=min(LOOK_EVERY_S, within_s))
            if task.done():
                break
            if not client.is_connected or client.stats["reconnects"] != reconnects:
                raise ConnectionClosedError
            if loop.time() > deadline:
                raise TimeoutError(f"no answer within {within_s:g} s")
        return task.result()
    finally:
        task.cancel()
