"""Limits: rates by tier and tenant, requests at once, turns at the database, and clients that are slow or many."""

import asyncio
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
import pytest_asyncio
import stack
from serving import READER, Answered, Served, answered, served

from relight.engine.errors import PoolExhausted, RequestRefused
from relight.engine.http.limits import AtOnce, HttpLimits, Rates, Turns, network
from relight.engine.http.protocol import MAX_HEADER_BYTES, MAX_URL_BYTES
from relight.engine.tables.tokens import Tier

pytestmark = pytest.mark.asyncio(loop_scope="module")

RECEIVE_S = 1.5
CONNECTIONS = 150


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(shared_database: str) -> AsyncIterator[Served]:
    limits = HttpLimits(rate_low=5, rate_standard=50, rate_high=100_000, tenant_requests=20, turn_timeout_s=5)
    with stack.folder() as spools:
        async with served(
            shared_database, spools, pool_size=2, limits=limits, receive_s=RECEIVE_S, connections=CONNECTIONS
        ) as api:
            yield api


async def tiered(api: Served, tier: Tier, tenant: str) -> Answered:
    async with api.http.get(f"{api.url}/v1/queries", headers=await api.bearer(READER, tenant, tier)) as response:
        return await answered(response)


async def test_a_tier_says_what_is_left_and_refuses_what_is_too_much(api: Served) -> None:
    answers = [await tiered(api, Tier.LOW, "low") for _ in range(12)]
    assert answers[0].headers["RateLimit-Policy"] == '"low";q=5;w=1'
    assert answers[0].headers["RateLimit"] == '"low";r=4;t=1'
    refused = [answer for answer in answers if answer.status != 200]
    assert refused
    assert "5 times a second" in refused[0].problem(429, "rate-limited")
    assert refused[0].headers["Retry-After"] == "1"
    assert refused[0].headers["RateLimit"] == '"low";r=0;t=1'
    assert (await tiered(api, Tier.LOW, "another")).status == 200
    assert (await tiered(api, Tier.STANDARD, "low")).status == 200

    async def again() -> bool:
        return (await tiered(api, Tier.LOW, "low")).status == 200

    await stack.until(again, "asked less often, it is answered again", within_s=4)


async def test_a_window_slides_so_that_no_two_windows_bursts_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.99
    monkeypatch.setattr("relight.engine.http.windows.time", SimpleNamespace(monotonic=lambda: now))
    rates = Rates(HttpLimits(rate_low=10))
    for _ in range(10):
        rates.count("a", Tier.LOW)
    now = 1_001.01
    rates.count("a", Tier.LOW)  # a hundredth of the burst has left the window
    with pytest.raises(RequestRefused):
        rates.count("a", Tier.LOW)
    now = 1_001.5
    for _ in range(4):
        rates.count("a", Tier.LOW)
    with pytest.raises(RequestRefused):
        rates.count("a", Tier.LOW)


async def test_an_ipv6_host_is_its_64_bits() -> None:
    assert network("2001:db8::1") == network("2001:db8::ffff") != network("2001:db8:0:1::1")
    assert network("192.0.2.1") != network("192.0.2.2")
    assert network("nonsense") == "unknown"


async def test_more_requests_at_once_than_a_tenant_may_have_are_refused_and_others_are_answered(
    api: Served,
) -> None:
    waiting = [
        asyncio.create_task(api.query("breakers.open_now", tenant="greedy", wait="9@p-nobody", timeout="3"))
        for _ in range(25)
    ]
    done, _ = await asyncio.wait(waiting, timeout=2, return_when=asyncio.FIRST_COMPLETED)
    assert "has 20 requests at hand already" in done.pop().result().problem(429, "too-many-at-once")
    assert (await api.query("breakers.open_now")).status == 200
    answers = await asyncio.gather(*waiting)
    assert sorted(answer.status for answer in answers) == [429] * 5 + [504] * 20


async def test_a_flood_of_one_tenant_leaves_others_quick(api: Served) -> None:
    await api.query("breakers.open_now", tenant="calm")
    stop = asyncio.Event()
    flooded = 0

    async def flood() -> None:
        nonlocal flooded
        while not stop.is_set():
            answer = await api.query("decisions.counts", tenant="flood")
            assert answer.status in (200, 429)
            flooded += 1

    floods = [asyncio.create_task(flood()) for _ in range(30)]
    waits = []
    while len(waits) < 20:
        began = time.monotonic()
        assert (await api.query("breakers.open_now", tenant="calm")).status == 200
        waits.append(time.monotonic() - began)
    stop.set()
    await asyncio.gather(*floods)
    assert flooded > 20
    assert sorted(waits)[len(waits) // 2] < 1


async def test_tenants_take_turns_whoever_has_more_waiting() -> None:
    turns, order = Turns(1, timeout_s=5), []

    async def work(tenant: str) -> None:
        async with turns.turn(tenant):
            order.append(tenant)
            await asyncio.sleep(0)

    await asyncio.gather(*(work("many") for _ in range(10)), *(work(tenant) for tenant in ("b", "c")))
    assert len(order) == 12
    assert set(order[:4]) == {"many", "b", "c"}


async def test_a_turn_that_does_not_come_is_an_error_and_nobody_elses_is_lost() -> None:
    turns = Turns(1, timeout_s=0.1)
    async with turns.turn("a"):
        with pytest.raises(PoolExhausted, match="none of 1 turns"):
            async with turns.turn("b"):
                pass
        cancelled = asyncio.create_task(turns.turn("c").__aenter__())
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait([cancelled])
    for _ in range(3):
        async with turns.turn("d"):
            pass
    held = AtOnce(1)
    with held.held("a"), pytest.raises(RequestRefused), held.held("a"):
        pass
    with held.held("a"):
        pass


async def raw(api: Served, *parts: bytes, end: bool = False) -> bytes:
    """What comes back for these bytes until the server closes."""
    host, _, port = api.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        if end:
            writer.write_eof()
        return await asyncio.wait_for(reader.read(), stack.DEADLINE_S)
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("request_bytes", "status", "kind"),
    [
        (b"GARBAGE\r\n\r\n", 400, "malformed"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50, 400, "malformed"),
        (b"GET / HTTP/9.9\r\n\r\n", 400, "malformed"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA\x00: b\r\n\r\n", 400, "malformed"),
        (b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", 400, "malformed"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400, "malformed"),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "malformed",
        ),
        (b"GET /" + b"a" * (MAX_URL_BYTES + 1) + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "uri-too-long"),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * MAX_HEADER_BYTES + b"\r\n\r\n",
            431,
            "headers-too-large",
        ),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * (MAX_HEADER_BYTES // 4), 431, "headers-too-large"),
    ],
)
async def test_what_is_no_request_is_refused_with_a_problem(
    api: Served, request_bytes: bytes, status: int, kind: str
) -> None:
    answer = await raw(api, request_bytes)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:200]
    assert f"/v1/problems/{kind}".encode() in answer
    assert b"content-type: application/problem+json" in answer
    assert (await api.query("breakers.open_now")).status == 200


async def test_endless_headers_are_cut_off_though_none_of_them_is_long(api: Served) -> None:
    parts = [b"GET / HTTP/1.1\r\nHost: x\r\n", *[b"X-%d: %s\r\n" % (n, b"y" * 1_000) for n in range(100)]]
    answer = await raw(api, *parts)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("sent", [b"", b"GET /", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_who_trickles_headers_is_cut_off_and_others_are_answered(api: Served, sent: bytes) -> None:
    host, _, port = api.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    began = time.monotonic()
    answer = asyncio.create_task(reader.read())
    for byte in [sent, *[b"a"] * 100]:
        if sent:
            writer.write(byte)
        assert (await api.query("breakers.open_now")).status == 200
        if answer.done():
            break
        await asyncio.wait([answer], timeout=0.1)
    said = await answer
    assert RECEIVE_S - 0.1 <= time.monotonic() - began < RECEIVE_S + 5
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"/v1/problems/too-slow" in said
    writer.close()


async def test_more_connections_than_there_may_be_are_refused_and_then_taken_again(api: Served) -> None:
    host, _, port = api.url.removeprefix("http://").partition(":")
    held = [await asyncio.open_connection(host, int(port)) for _ in range(CONNECTIONS + 5)]
    refused = await asyncio.wait_for(held[-1][0].read(), stack.DEADLINE_S)
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"/v1/problems/unavailable" in refused
    for _, writer in held:
        writer.close()

    async def taken() -> bool:
        return (await raw(api, b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).startswith(
            b"HTTP/1.1 404"
        )

    await stack.until(taken, "there is room again")


async def test_a_body_that_nobody_reads_is_discarded_and_its_sender_cut_off(api: Served) -> None:
    host, _, port = api.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000000\r\n\r\n")
    began = time.monotonic()
    first = await asyncio.wait_for(reader.readuntil(b"}"), stack.DEADLINE_S)
    assert first.startswith(b"HTTP/1.1 401 ")

    async def cut() -> bool:
        try:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)
        except ConnectionError:
            return True
        return reader.at_eof()

    await stack.until(cut, "the sender is cut off")
    assert time.monotonic() - began < RECEIVE_S + 6
