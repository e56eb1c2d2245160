"""Whom a prober asks."""

from collections.abc import Hashable, Mapping
from typing import Any, Protocol

import orjson
from nats.aio.client import Client
from nats.errors import Error as NatsError

from relight.engine.log.answers import answered
from relight.engine.log.topology import STREAM
from relight.engine.proving.models import Facts

ASK_S = 2.0
TRANSIENT = (NatsError, TimeoutError, OSError, ValueError)


class Source(Protocol):
    """`look` is cheap and tells only that something changed; `ask` gives all the facts. Neither raises.

    `look` is None where nobody answers, or it costs as much as asking.
    """

    name: str

    async def look(self) -> Hashable | None: ...

    async def ask(self) -> Facts: ...

    async def close(self) -> None: ...


async def stream_detail(client: Client) -> Mapping[str, Any]:
    """Of the stream, as its account is told. Raises what is `TRANSIENT`; `LookupError` where there is none."""
    asking = client.request(f"$JS.API.STREAM.INFO.{STREAM}", b"", timeout=ASK_S)
    said: dict[str, Any] = orjson.loads((await answered(client, asking, within_s=ASK_S)).data)
    if "error" in said:
        raise LookupError(str(said["error"].get("description", said["error"])))
    return said


def connected_server(client: Client) -> str:
    """The id of the server that a client is connected to, for which nats-py has no public name."""
    return str(client._server_info.get("server_id"))


def said_of(error: Exception) -> str:
    return str(error) or type(error).__name__
