"""The HTTP API of one test file as it runs in the service: a real socket, pool, recorder, stream and projector."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import stack
from prometheus_client import CollectorRegistry

from relight.engine.clock import Clock
from relight.engine.health.probe import HealthProbe, Watched
from relight.engine.health.readiness import Readiness
from relight.engine.http.api import ApiParts, Observed, build_api
from relight.engine.http.feed import Feed
from relight.engine.http.limits import HttpLimits
from relight.engine.http.server import HttpServer, http_server
from relight.engine.ingest import Ingest
from relight.engine.log.watermarks import ProjectedWatermarks
from relight.engine.recorder.recorder import Recorder
from relight.engine.tables import tokens
from relight.engine.tables.connecting import connect_probe
from relight.engine.tables.pools import Pool, PoolOptions, open_pool
from relight.engine.tables.tokens import Tier, TokenRole

READER, PUBLISHER, OPERATOR = TokenRole.READER, TokenRole.PUBLISHER, TokenRole.OPERATOR


@dataclass
class Served:
    """A running API, and everything behind it."""

    url: str
    pool: Pool
    recorder: Recorder
    projecting: stack.Projecting
    server: HttpServer
    http: aiohttp.ClientSession
    clock: Clock
    made: dict[Any, str] = field(default_factory=dict)

    async def token(self, role: TokenRole = READER, tenant: str = "acme", tier: Tier = Tier.HIGH) -> str:
        """A good token's text; made once."""
        key = (role, tenant, tier)
        if key not in self.made:
            _, self.made[key] = await tokens.create(
                self.pool, tenant=tenant, role=role, tier=tier, name="test", now=self.clock.now(), expires_at=None
            )
        return self.made[key]

    async def bearer(self, role: TokenRole = READER, tenant: str = "acme", tier: Tier = Tier.HIGH) -> dict[str, str]:
        return {"Authorization": f"Bearer {await self.token(role, tenant, tier)}"}

    async def ask(
        self,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        role: TokenRole = READER,
        tenant: str = "acme",
        **parameters: Any,
    ) -> "Answered":
        """GET with a good token."""
        said = await self.bearer(role, tenant) | (headers or {})
        async with self.http.get(self.url + path, params=parameters, headers=said) as response:
            return await answered(response)

    async def query(self, name: str, **parameters: Any) -> "Answered":
        return await self.ask(f"/v1/queries/{name}", **parameters)

    async def send(
        self,
        body: Any,
        *,
        content_type: str = "application/cloudevents+json",
        headers: dict[str, str] | None = None,
        role: TokenRole = PUBLISHER,
        tenant: str = "acme",
        ack: str | None = "spooled",
    ) -> "Answered":
        """POST of events; what is not bytes is sent as JSON."""
        said = await self.bearer(role, tenant) | {"Content-Type": content_type} | (headers or {})
        data = body if isinstance(body, bytes) else stack.orjson.dumps(body)
        parameters = {} if ack is None else {"ack": ack}
        async with self.http.post(f"{self.url}/v1/events", data=data, headers=said, params=parameters) as response:
            return await answered(response)


@dataclass(frozen=True)
class Answered:
    """What came back."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return stack.orjson.loads(self.body)

    def problem(self, status: int, kind: str) -> str:
        """Its detail, once it is sure to be this problem."""
        assert self.status == status, (self.status, self.body)
        assert self.headers["Content-Type"] == "application/problem+json"
        said = self.json
        assert said["type"] == (kind if kind == "about:blank" else f"/v1/problems/{kind}"), said
        assert said["status"] == status
        assert said["title"]
        assert self.headers["X-Content-Type-Options"] == "nosniff"
        return str(said["detail"])


async def answered(response: aiohttp.ClientResponse) -> Answered:
    return Answered(response.status, response.headers, await response.read())


@asynccontextmanager
async def served(
    database: str,
    spools: Path,
    *,
    pool_size: int = 5,
    limits: HttpLimits | None = None,
    receive_s: float = 20,
    connections: int = 2_000,
    heartbeat_s: float = 15,
    ring_changes: int = 10_000,
) -> AsyncIterator[Served]:
    """On `database`, with a stream of its own."""
    async with AsyncExitStack() as opened:
        nats = await opened.enter_async_context(stack.nats_server())
        projecting = await opened.enter_async_context(stack.projecting(nats, database))
        recorder = await opened.enter_async_context(Recorder(stack.options(nats, spools)))
        pool = await opened.enter_async_context(await open_pool(database, PoolOptions(size=pool_size)))
        clock, readiness = Clock(), Readiness()
        readiness.ready()
        watched = Watched(
            client=projecting.client,
            connect=lambda: connect_probe(database),
            home=spools.parent,
            region="eu",
            pools={"requests": pool},
            projector=projecting.projector,
        )
        probe = await opened.enter_async_context(HealthProbe(watched))
        parts = ApiParts(
            pool=pool,
            ingest=Ingest(recorder),
            watermarks=ProjectedWatermarks(projecting.client),
            observed=Observed(probe=probe, readiness=readiness, registry=CollectorRegistry()),
            feed=Feed(projecting.client, pool, ring_changes=ring_changes),
            limits=limits or HttpLimits(),
            receive_s=receive_s,
            heartbeat_s=heartbeat_s,
            clock=clock,
        )
        server = await opened.enter_async_context(
            http_server(
                build_api(parts),
                host="127.0.0.1",
                port=0,
                connections=connections,
                receive_s=receive_s,
            )
        )
        http = await opened.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=stack.DEADLINE_S), auto_decompress=False)
        )
        yield Served(server.url, pool, recorder, projecting, server, http, clock)
