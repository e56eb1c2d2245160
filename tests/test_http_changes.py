"""Changes as Server-Sent Events: each once it is visible, to those whom it concerns, resumed without loss, and what was
lost is said."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import stack
from serving import OPERATOR, READER, Served, answered, served

from relight.engine.http.limits import HttpLimits
from relight.engine.recorder.receipts import Ack
from relight.engine.scope import entered
from relight.engine.tables import tokens
from relight.engine.tables.tokens import Tier
from relight.events.incidents import IncidentOpened, Severity

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEARTBEAT_S = 0.5
RING = 50


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(shared_database: str) -> AsyncIterator[Served]:
    limits = HttpLimits(tenant_streams=20)
    with stack.folder() as spools:
        async with served(shared_database, spools, heartbeat_s=HEARTBEAT_S, ring_changes=RING, limits=limits) as api:
            yield api


@dataclass(frozen=True)
class Sent:
    """One event of the stream; a heartbeat's is `heartbeat`."""

    event: str
    id: str | None
    data: Any

    @property
    def n(self) -> int:
        return int(self.data["subject"].rpartition(" ")[2])


class Following:
    """A client of the stream."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.last_id: str | None = None

    async def next(self, *, heartbeats: bool = False) -> Sent | None:
        """The next event; None at the end."""
        async with asyncio.timeout(stack.DEADLINE_S):
            while True:
                fields: dict[str, str] = {}
                while line := (await self._response.content.readline()).decode():
                    if line == "\n":
                        break
                    name, _, value = line.rstrip("\n").partition(": ")
                    fields[name or "comment"] = value
                if not fields:
                    return None
                self.last_id = fields.get("id", self.last_id)
                if "data" in fields:
                    return Sent(fields.get("event", "message"), fields.get("id"), stack.orjson.loads(fields["data"]))
                if heartbeats and "comment" in fields:
                    return Sent("heartbeat", fields.get("id"), None)

    async def take(self, count: int) -> list[Sent]:
        found = [await self.next() for _ in range(count)]
        assert None not in found
        return [sent for sent in found if sent is not None]


@asynccontextmanager
async def following(
    api: Served, *, after: str | None = None, role: Any = READER, tenant: str = "acme", **parameters: Any
) -> AsyncIterator[Following]:
    """Connected, and told where it is."""
    headers = await api.bearer(role, tenant) | ({} if after is None else {"Last-Event-ID": after})
    async with api.http.get(f"{api.url}/v1/changes", params=parameters, headers=headers) as response:
        assert response.status == 200, await response.read()
        assert response.headers["Content-Type"].startswith("text/event-stream")
        client = Following(response)
        if after is None:
            told = await client.next(heartbeats=True)
            assert told is not None
            assert told.event == "heartbeat"
        yield client


async def happens(api: Served, *numbers: int, tenant: str = "acme") -> None:
    """Failures of services that bear their number, visible when this returns."""
    with entered(tenant=tenant):
        receipts = [api.recorder.record(stack.failed(n, service=f"s {n}")) for n in numbers]
    for receipt in receipts:
        await receipt.reached(Ack.PROJECTED)


def incident(name: str) -> IncidentOpened:
    return IncidentOpened(
        incident=name,
        incident_name="x",
        executed_by="x",
        severity=Severity.LOW,
        affected_domains=(),
        description="",
    )


async def test_a_change_is_sent_once_it_is_visible(api: Served) -> None:
    async with following(api) as client:
        for n in range(5):
            await happens(api, n)
            sent = await client.next()
            assert sent is not None
            assert (sent.event, sent.n) == ("breakers.failed", n)
            assert sent.data.keys() == {"seq", "id", "type", "subject", "tenant", "region", "time", "subsystem"}
            assert sent.id == f"1.{sent.data['seq']}"
            rows = (await api.query("breakers.history", service=f"s {n}")).json
            assert sent.data["id"] in {row["event_id"] for row in rows["rows"]}


async def test_nothing_is_sent_before_it_is_visible(api: Served, shared_database: str) -> None:
    async with following(api) as client:
        locking = await stack.asyncpg.connect(shared_database)
        async with locking.transaction():
            await locking.execute("LOCK TABLE circuit_breaker_events IN EXCLUSIVE MODE")
            receipt = api.recorder.record(stack.failed(1, service="s 1"))
            await receipt.reached(Ack.REPLICATED)
            for _ in range(2):
                beat = await client.next(heartbeats=True)
                assert beat is not None
                assert beat.event == "heartbeat"
        await locking.close()
        assert (await client.take(1))[0].n == 1


async def test_a_follower_gets_its_tenants_changes_and_the_platforms_and_of_one_subsystem_if_asked(
    api: Served,
) -> None:
    async with (
        following(api) as mine,
        following(api, tenant="other") as theirs,
        following(api, subsystem="incidents") as incidents,
        following(api, role=OPERATOR, tenant="-") as platform,
    ):
        async with api.http.get(
            f"{api.url}/v1/changes?tenant=other", headers=await api.bearer(OPERATOR, "-")
        ) as response:
            any_tenant = Following(response)
            await any_tenant.next(heartbeats=True)
            await happens(api, 1)
            await happens(api, 2, tenant="other")
            await happens(api, 3, tenant="-")
            await api.recorder.record(incident("i 4")).reached(Ack.PROJECTED)
            assert [sent.n for sent in await mine.take(3)] == [1, 3, 4]
            assert [sent.n for sent in await theirs.take(2)] == [2, 3]
            assert [sent.n for sent in await incidents.take(1)] == [4]
            assert [sent.n for sent in await platform.take(1)] == [3]
            assert [sent.n for sent in await any_tenant.take(2)] == [2, 3]


async def test_who_comes_back_goes_on_where_he_was_while_others_follow(api: Served) -> None:
    async with following(api) as other:
        async with following(api) as client:
            await happens(api, 1, 2)
            await client.take(2)
            last_id = client.last_id
        await happens(api, *range(3, 23))
        async with following(api, after=last_id) as client:
            assert [sent.n for sent in await client.take(20)] == list(range(3, 23))
        assert len(await other.take(22)) == 22


async def test_who_comes_back_alone_goes_on_where_he_was(api: Served) -> None:
    async with following(api) as client:
        last_id = client.last_id
    await happens(api, *range(10))
    async with following(api, after=last_id) as client:
        assert [sent.n for sent in await client.take(10)] == list(range(10))
        last_id = client.last_id
    async with following(api, after=last_id) as client:
        await happens(api, 11)
        assert (await client.take(1))[0].n == 11


async def test_what_has_left_the_ring_is_said(api: Served) -> None:
    async with following(api) as other:
        async with following(api) as client:
            last_id = client.last_id
        for n in range(0, RING + 20, 10):
            await happens(api, *range(n, n + 10))
            assert [sent.n for sent in await other.take(10)] == list(range(n, n + 10))
        async with following(api, after=last_id) as client:
            [gap] = await client.take(1)
            assert (gap.event, gap.data) == ("gap", {"from": last_id, "to": gap.id})
            await happens(api, 1)
            assert (await client.take(1))[0].n == 1


@pytest.mark.parametrize("last_id", ["7.1", "1.99999999"])
async def test_a_place_that_is_not_on_this_stream_is_a_gap(api: Served, last_id: str) -> None:
    async with following(api, after=last_id) as client:
        [gap] = await client.take(1)
        assert gap.event == "gap"
        assert gap.data["from"] == last_id


async def test_a_slow_client_is_told_what_it_missed_and_keeps_nobody_waiting(api: Served) -> None:
    async with following(api) as quick:
        host, _, port = api.url.removeprefix("http://").partition(":")
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        slow.connect((host, int(port)))
        reader, writer = await asyncio.open_connection(sock=slow, limit=1 << 10)
        token = await api.token()
        writer.write(f"GET /v1/changes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        await reader.readuntil(b"heartbeat")
        seen = 0

        async def flood() -> None:
            for n in range(6):
                receipts = [api.recorder.record(incident(f"{n} {i} {'y' * 180}")) for i in range(500)]
                await receipts[-1].reached(Ack.PROJECTED)

        flooding = asyncio.create_task(flood())
        while not flooding.done() or seen == 0:
            sent = await quick.next(heartbeats=True)
            assert sent is not None
            seen += sent.event != "heartbeat"
        await flooding
        async with asyncio.timeout(stack.DEADLINE_S):
            text = b""
            while b"event: gap" not in text:
                text = text[-100:] + await reader.read(65_536)
        writer.close()


async def test_a_heartbeat_says_where_one_is_though_all_that_happened_was_others(api: Served) -> None:
    async with following(api, tenant="quiet") as client:
        before = client.last_id
        await happens(api, 1, 2, 3)

        async def moved() -> bool:
            await client.next(heartbeats=True)
            return client.last_id != before

        await stack.until(moved, "a heartbeat with another id")


async def test_a_stream_ends_when_its_token_is_revoked(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relight.engine.http.verifier.BELIEVED_S", 0.1)
    token, text = await tokens.create(
        api.pool,
        tenant="acme",
        role=READER,
        tier=Tier.HIGH,
        name="",
        now=api.clock.now(),
        expires_at=None,
    )
    async with api.http.get(f"{api.url}/v1/changes", headers={"Authorization": f"Bearer {text}"}) as response:
        client = Following(response)
        assert await client.next(heartbeats=True) is not None
        await tokens.revoke(api.pool, token.id, now=api.clock.now())

        async def ended() -> bool:
            return await client.next(heartbeats=True) is None

        await stack.until(ended, "the stream ends")


async def test_too_many_streams_of_one_tenant_are_refused_and_others_still_follow(api: Served) -> None:
    headers = await api.bearer(READER, "many")
    opened = [await api.http.get(f"{api.url}/v1/changes", headers=headers) for _ in range(21)]
    assert [response.status for response in opened] == [200] * 20 + [429]
    (await answered(opened[-1])).problem(429, "too-many-at-once")
    async with following(api):
        pass
    for response in opened:
        response.close()

    async def free() -> bool:
        async with api.http.get(f"{api.url}/v1/changes", headers=headers) as response:
            return response.status == 200

    await stack.until(free, "closed streams count no more")


@pytest.mark.parametrize(
    ("parameters", "headers"),
    [
        ({"subsystem": "nope"}, {}),
        ({"subsystem": "' OR 1=1 --"}, {}),
        ({"nope": "1"}, {}),
        ({}, {"Last-Event-ID": "x"}),
        ({}, {"Last-Event-ID": "1.2.3"}),
        ({}, {"Last-Event-ID": "1." + "9" * 100}),
        ({}, {"Last-Event-ID": "1.*"}),
    ],
)
async def test_garbage_is_refused(api: Served, parameters: dict[str, str], headers: dict[str, str]) -> None:
    (await api.ask("/v1/changes", headers=headers, **parameters)).problem(422, "invalid-parameter")


async def test_a_drain_ends_the_streams_cleanly(database: str) -> None:
    with stack.folder() as spools:
        async with served(database, spools) as api, following(api) as client:
            await happens(api, 1)
            await client.take(1)
            stopping = asyncio.create_task(api.server.stop(within_s=20))
            assert await client.next() is None
            async with asyncio.timeout(5):
                await stopping


async def test_the_stream_goes_on_after_postgresql_went_away(api: Served, shared_database: str) -> None:
    async with following(api) as client:
        admin = await stack.asyncpg.connect(shared_database)
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid()"
        )
        await admin.close()
        with entered(tenant="acme"):
            receipt = api.recorder.record(stack.failed(9, service="s 9"))
        await receipt.reached(Ack.REPLICATED)
        assert (await client.take(1))[0].n == 9
