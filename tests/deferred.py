"""What tests of deferred facts share: a server, facts of one event and of three, and what came of them."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest_asyncio
from nats.aio.client import Client
from stack import assert_chained, connected, failed, nats_server, on_stream

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.recorder.items import Made
from relight.engine.recorder.recorder import Recorder
from relight.engine.scope import Scope

T0 = 1_790_000_000_000_000
HERE = Scope(tenant="globex", correlation="run-7", causation="018f0000-0000-7000-8000-000000000001")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nats() -> AsyncIterator[EmbeddedNats]:
    async with nats_server() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(nats: EmbeddedNats) -> AsyncIterator[Client]:
    async with connected(nats) as connection:
        yield connection


def one(n: int) -> Iterator[Made]:
    yield Made(failed(n), T0 + n)


def three(n: int) -> Iterator[Made]:
    for part in range(3):
        yield Made(failed(3 * n + part), T0 + n)


async def of(client: Client, recorder: Recorder) -> list[dict[str, Any]]:
    """The recorder's chain as it stands on the stream."""
    return assert_chained(await on_stream(client), recorder.publisher)


def ns(found: list[dict[str, Any]]) -> list[int]:
    return [body["data"]["details"]["n"] for body in found if body["type"] == "breakers.failed"]


def writer_of(recorder: Recorder) -> Any:
    return recorder._session.writer  # type: ignore[union-attr]
