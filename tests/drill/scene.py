"""What a drill plays on: servers, Relight's processes, a publisher and the clients."""

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from children import Child, child
from fleet import Fleet, Served, ServedFailed
from plan import Plan
from reporting import Step
from watching import HealthWatch

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.embedded.postgres import EmbeddedPostgres
from relight.engine.log.topology import STREAM, connect

CAUGHT_UP_S = 180.0
POLL_S = 0.05


@dataclass(kw_only=True)
class Scene:
    """Everything that runs, and what its phases do with it."""

    plan: Plan
    folder: Path
    nats: EmbeddedNats
    postgres: EmbeddedPostgres
    fleet: Fleet
    publisher: Child
    clients: Child
    tokens: dict[str, str]
    step: Step
    ids: Path
    asks: int = field(default=0)

    def publish(self, events_per_s: float) -> None:
        self.publisher.tell({"do": "pace", "events_per_s": events_per_s})

    async def samples(self) -> list[dict[str, float]]:
        """How far events came and when, since the last time; waits for those on their way."""
        self.publisher.tell({"do": "samples"})
        found: list[dict[str, float]] = (await self.publisher.heard("samples", within_s=400))["samples"]
        return found

    def begin_asking(self, *, clients: int, warm_up_s: float = 0, side: str | None = None) -> None:
        self.asks += 1
        order = {"name": f"{self.asks}", "clients": clients, "warm_up_s": warm_up_s, "side": side}
        self.clients.tell({"do": "begin", **order})

    async def end_asking(self) -> dict[str, Any]:
        self.clients.tell({"do": "end"})
        return await self.clients.heard("summary")

    async def lag(self) -> int:
        """Events that are recorded and not in the tables: in the spool, and on the stream beyond the position."""
        client = await connect(self.nats.url, name="relight drill")
        try:
            last_seq = (await client.jetstream(timeout=5).stream_info(STREAM)).state.last_seq
        finally:
            await client.close()
        connection = await asyncpg.connect(self.postgres.url)
        try:
            seq = await connection.fetchval("SELECT seq FROM projection_positions") or 0
        finally:
            await connection.close()
        return int(self.publisher.latest.get("exposed", 0)) + max(0, last_seq - seq)

    async def caught_up(self, *, to_events: int = 0) -> float:
        """Seconds until no more than so many events lag behind. Raises `ServedFailed` when it takes too long."""
        began = time.monotonic()
        while (lag := await self.lag()) > to_events:
            if time.monotonic() - began > CAUGHT_UP_S:
                raise ServedFailed(f"{lag} events are still behind after {CAUGHT_UP_S:g} s")
            await asyncio.sleep(POLL_S)
        return time.monotonic() - began

    async def at_rest(self) -> None:
        """Nobody publishes, and all that was published is in the tables."""
        self.publish(0)
        at = self.publisher.latest.get("at", 0)
        while self.publisher.latest.get("at", 0) <= at:
            await asyncio.sleep(POLL_S)
        await self.caught_up()

    @asynccontextmanager
    async def watched(self, served: Served) -> AsyncIterator[HealthWatch]:
        async with HealthWatch(f"{served.url}/health") as watch:
            yield watch


@asynccontextmanager
async def scene(plan: Plan, step: Step) -> AsyncIterator[Scene]:
    """All of it, fsyncing as in production, in a folder that goes at the end."""
    folder = Path(tempfile.mkdtemp(prefix="relight-drill-", dir="/tmp"))
    folder.chmod(0o755)  # as root, PostgreSQL runs as nobody
    try:
        async with AsyncExitStack() as stack:
            step("starting NATS and PostgreSQL")
            nats = await stack.enter_async_context(EmbeddedNats(folder / "servers"))
            postgres = await stack.enter_async_context(EmbeddedPostgres(folder / "servers"))
            clients = await stack.enter_async_context(child("asking_process.py", log=folder / "clients.log"))

            async def changed(urls: list[str]) -> None:
                clients.tell({"do": "servers", "urls": urls})

            environment = {
                "PATH": os.environ.get("PATH", ""),
                "RELIGHT_REGION": "eu",
                "RELIGHT_NATS_URL": nats.url,
                "RELIGHT_NATS_MONITOR_URLS": nats.monitor_url,
                "RELIGHT_DATABASE_URL": postgres.url,
                "RELIGHT_HTTP_HOST": "127.0.0.1",
                "RELIGHT_POOL_SIZE": str(plan.pool_size),
            }
            fleet = Fleet(folder, environment, changed)
            stack.push_async_callback(fleet.end_all)
            step("migrating, and a token for each tenant")
            await fleet.command("migrate")
            tenants = [plan.tenant(number) for number in range(plan.tenants)]
            made = await asyncio.gather(*(_token(fleet, tenant) for tenant in tenants))
            tokens = dict(zip(tenants, made, strict=True))
            clients.tell({"plan": asdict(plan), "tokens": tokens, "database_url": postgres.url, "servers": []})
            await clients.heard("started")
            step("starting Relight's processes")
            await asyncio.gather(
                *(fleet.start("projector") for _ in range(plan.projectors)),
                *(fleet.start("api") for _ in range(plan.apis)),
            )
            publisher = await stack.enter_async_context(child("publishing_process.py", log=folder / "publisher.log"))
            ids = folder / "ids"
            publisher.tell(
                {
                    "plan": asdict(plan),
                    "nats_url": nats.url,
                    "monitor_urls": [nats.monitor_url],
                    "spools": str(folder / "publisher"),
                    "ids": str(ids),
                }
            )
            await publisher.heard("started")
            here = Scene(
                plan=plan,
                folder=folder,
                nats=nats,
                postgres=postgres,
                fleet=fleet,
                publisher=publisher,
                clients=clients,
                tokens=tokens,
                step=step,
                ids=ids,
            )
            step(f"filling the tables with {plan.prefill_events:,} events")
            publisher.tell({"do": "fill"})
            await publisher.heard("filled")
            await here.samples()
            await here.at_rest()
            yield here
    finally:
        if plan.logs is not None:
            await asyncio.to_thread(_keep_logs, folder, Path(plan.logs))
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _keep_logs(folder: Path, to: Path) -> None:
    to.mkdir(parents=True, exist_ok=True)
    for log in folder.glob("*.log"):
        shutil.copy(log, to)


async def _token(fleet: Fleet, tenant: str) -> str:
    made = await fleet.command("token", "create", "--tenant", tenant, "--role", "reader", "--tier", "high")
    return str(made["token"])
