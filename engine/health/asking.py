"""Asks a running service how it is, over HTTP or over NATS."""

import asyncio
import urllib.error
import urllib.request
from typing import Final

from nats.aio.client import Client

from relight.engine.errors import Unreachable
from relight.engine.health.document import read_document, read_flat
from relight.engine.health.models import Health
from relight.engine.log.answers import answered
from relight.engine.log.reader import TRANSIENT

STATUS: Final = "cmd.status"
ANSWER_S = 3.0
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


async def fetch_health(url: str) -> Health:
    """Of the service at `url`, with or without /health at its end. Raises `Unreachable`."""
    base = url.rstrip("/").removesuffix("/health")
    if not base.startswith(("http://", "https://")):
        raise Unreachable(f"{url} is no address of a service: give it as http://host:port")
    body = await asyncio.to_thread(_get, f"{base}/health")
    try:
        return read_document(body)
    except ValueError as error:
        raise Unreachable(f"{base}/health answers, but not as a relight does: is the address right?") from error


def _get(url: str) -> bytes:
    try:
        with _direct.open(url, timeout=ANSWER_S) as response:
            body: bytes = response.read()
    except urllib.error.HTTPError as error:  # 503 has a body, too: it says why
        with error:
            body = error.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Unreachable(f"{url} does not answer ({reason}): does a `relight up` run there?") from error
    return body


async def request_health(client: Client) -> Health | None:
    """Of whichever service answers on NATS; None where none does."""
    try:
        answer = await answered(client, client.request(STATUS, b"", timeout=ANSWER_S), within_s=ANSWER_S)
        return read_flat(answer.data)
    except (*TRANSIENT, ValueError):
        return None
