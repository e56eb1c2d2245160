"""Asks the servers' monitoring addresses, and the stream's account for the stream."""

import asyncio
import urllib.request
from collections.abc import Hashable, Sequence

import orjson
from nats.aio.client import Client

from relight.engine.log.topology import STREAM
from relight.engine.proving.models import Facts, ServerFacts, StreamFacts
from relight.engine.proving.sources import ASK_S, TRANSIENT, connected_server, said_of, stream_detail

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Monitors:
    """Every replica's server has to be among them; each is asked whenever one is."""

    name = "monitoring addresses"

    def __init__(self, client: Client, urls: Sequence[str]) -> None:
        self._client = client
        self._urls = tuple(urls)

    async def look(self) -> Hashable | None:
        return None

    async def ask(self) -> Facts:
        answers = await asyncio.gather(*(asyncio.to_thread(varz, url) for url in self._urls))
        servers = tuple(ServerFacts.of(answer) for answer in answers if isinstance(answer, dict))
        missing = tuple(answer for answer in answers if isinstance(answer, str))
        try:
            detail = await stream_detail(self._client)
        except LookupError as error:
            return Facts(servers=servers, faults=(f"stream {STREAM} cannot be asked: {error}",))
        except TRANSIENT as error:
            return Facts(servers=servers, missing=(f"stream {STREAM} cannot be asked: {said_of(error)}",))
        stream = StreamFacts.of(detail, alone=connected_server(self._client))
        return Facts(servers=servers, stream=stream, missing=missing)

    async def close(self) -> None:
        return None


def varz(url: str) -> dict[str, object] | str:
    """What a server's monitoring address says of it, or why it does not."""
    try:
        with _direct.open(f"{url.rstrip('/')}/varz", timeout=ASK_S) as response:
            answer: dict[str, object] = orjson.loads(response.read())
            return answer
    except (OSError, ValueError) as error:
        return f"monitoring address {url} does not answer: {error}"
