"""A connection to NATS that was lost half, or answers late, is whole again soon: nothing waits for ever."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.errors import FlushTimeoutError
from proxy import Proxy, proxied
from stack import connected, drained, failed, nats_server, numbers, on_stream, options, until

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.log import topology
from relight.engine.log.steady_client import SteadyClient
from relight.engine.log.topology import connect
from relight.engine.recorder.recorder import Recorder

SOON_S = 5.0
CONNECTION = 2
"""Its two ends, as the proxy counts them."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nats() -> AsyncIterator[EmbeddedNats]:
    async with nats_server(sync_always=False) as server:
        yield server


@asynccontextmanager
async def through_proxy(nats: EmbeddedNats) -> AsyncIterator[tuple[Client, Proxy]]:
    async with proxied(nats.url) as proxy:
        client = await connect(proxy.url, name="relight test")
        try:
            yield client, proxy
        finally:
            async with asyncio.timeout(SOON_S):
                await client.close()


async def answers(client: Client) -> None:
    await client.request("$JS.API.INFO", timeout=SOON_S)


def once_reconnecting(monkeypatch: pytest.MonkeyPatch, then: Callable[[], None]) -> None:
    """After the next handshake."""
    original, armed = SteadyClient._process_connect_init, [True]

    async def instead(self: SteadyClient) -> None:
        await original(self)
        if armed:
            armed.clear()
            then()

    monkeypatch.setattr(SteadyClient, "_process_connect_init", instead)


async def fill(client: Client) -> None:
    """More than sockets take: some of it waits in the process itself."""
    for _ in range(40):
        await client.publish("nobody.listens", bytes(500_000))
    transport: Any = client._transport
    await until(lambda: transport._io_writer.transport.get_write_buffer_size() > 0)


async def test_an_answer_to_a_ping_that_nobody_waits_for_any_more_does_no_harm(nats: EmbeddedNats) -> None:
    async with through_proxy(nats) as (client, proxy):
        proxy.stall()
        with pytest.raises(FlushTimeoutError):
            await client.flush(timeout=0.1)  # type: ignore[arg-type]  # fractions will do
        proxy.go_on()
        await answers(client)
        assert client.stats["reconnects"] == 0


async def test_a_connection_with_a_full_socket_is_given_up_like_any_other(
    nats: EmbeddedNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topology, "PING_EVERY_S", 0.1)
    async with through_proxy(nats) as (client, proxy):
        proxy.stall()
        await fill(client)
        await until(lambda: client.stats["reconnects"] == 1, "it is connected again", within_s=SOON_S)
        await answers(client)


async def test_a_client_with_a_full_socket_can_be_closed(nats: EmbeddedNats) -> None:
    async with through_proxy(nats) as (client, proxy):
        proxy.stall()
        await fill(client)


async def test_a_reconnection_that_stopped_half_way_leaves_no_connection_behind(
    nats: EmbeddedNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Client.flush, "__defaults__", (0.2,))  # nats-py waits 10 s for what it sent again
    async with through_proxy(nats) as (client, proxy):

        def stop_half_way() -> None:
            proxy.stall()
            client._ps.buf.extend(b"MSG half.a.message 1 9999\r\n")

        once_reconnecting(monkeypatch, stop_half_way)
        proxy.cut()
        await until(lambda: client.stats["reconnects"] == 2 and client.is_connected, "it tries again")
        tasks = [repr(task.get_coro()) for task in asyncio.all_tasks()]
        assert [sum(name in task for task in tasks) for name in ("_read_loop", "_flusher", "_ping_interval")] == [
            1,
            1,
            1,
        ]
        proxy.go_on()
        await until(lambda: len(proxy.writers) == CONNECTION, "the one that failed was closed", within_s=SOON_S)
        await answers(client)


async def test_an_error_that_nats_py_does_not_expect_does_not_end_reconnecting(
    nats: EmbeddedNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("read() called while another coroutine is already waiting for incoming data")

    async with through_proxy(nats) as (client, proxy):
        once_reconnecting(monkeypatch, fail)
        proxy.cut()
        await until(lambda: client.stats["reconnects"] == 1, "it tries again", within_s=SOON_S)
        await answers(client)


async def test_a_recorder_lends_no_client_that_was_closed(nats: EmbeddedNats, spools: Path) -> None:
    async with proxied(nats.url) as proxy, Recorder(options(nats, spools, nats_url=proxy.url)) as recorder:
        first = await asyncio.wrap_future(recorder.in_loop(recorder.client()))
        proxy.deaf = True
        await asyncio.wrap_future(recorder.in_loop(first.close()))  # as for an error that the server tells of
        asked = recorder.in_loop(recorder.client())
        proxy.deaf = False
        proxy.cut()
        second = await asyncio.wrap_future(asked)
        assert second is not first
        assert second.is_connected
        recorder.record(failed(1))
        await drained(recorder)
        assert recorder.health().restarts == 1, "NATS' being away is no restart, the closed client is one"
    async with connected(nats) as client:
        assert numbers(await on_stream(client)) == [1]
