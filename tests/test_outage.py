"""A server that goes away or hangs under load: recording goes on, health says it, and all is caught up afterwards."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import psutil
import pytest
import stack
from stack import failed, until

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.embedded.postgres import EmbeddedPostgres
from relight.engine.errors import Unreachable
from relight.engine.health.asking import STATUS
from relight.engine.ingest import Ingest
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.servers import Servers
from relight.engine.service import Parts, Service, caught_up, serving
from relight.engine.settings import Settings
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.digest import digest_memory, digest_postgres
from relight.engine.tables.projector import ProjectorState
from relight.engine.tables.queries import run

OUTAGE_S = 3.0
LONGEST_QUERY_S = 4.0
SETTINGS: dict[str, Any] = {"pool_acquire_timeout_s": 1.0, "statement_timeout_s": 1.0}
Away = Callable[[], Awaitable[None]]


@dataclass
class Load:
    """Events recorded and taken in, queries and health asked, all the time."""

    service: Service
    recorder: Recorder
    http: aiohttp.ClientSession
    recorded: int = 0
    taken: int = 0
    answered: int = 0
    unreachable: int = 0
    slowest_query_s: float = 0.0
    slowest_look_s: float = 0.0
    statuses: list[tuple[float, int, list[str]]] = field(default_factory=list)
    stopped: bool = False

    async def records(self) -> None:
        while not self.stopped:
            for _ in range(5):
                self.recorded += 1
                self.recorder.record(failed(self.recorded))
            await asyncio.sleep(0.02)

    async def ingests(self) -> None:
        """What `POST /v1/events` and `in.>` do."""
        ingest = Ingest(self.recorder)
        while not self.stopped:
            self.taken += 1
            data = {"service_name": "outside", "error_class": "Timeout", "details": {"n": -self.taken}}
            document = {"specversion": "1.0", "id": f"n{self.taken}", "source": "/test", "type": "breakers.failed"}
            document |= {"time": stack.NOW.isoformat(), "data": data}  # type: ignore[dict-item]
            await ingest.take([document], tenant="acme", ack=Ack.SPOOLED)
            await asyncio.sleep(0.05)

    async def queries(self) -> None:
        while not self.stopped:
            began = time.monotonic()
            try:
                await run(self.service.pool, "breakers.open_now", tenant="acme")
                self.answered += 1
            except Unreachable:
                self.unreachable += 1
            self.slowest_query_s = max(self.slowest_query_s, time.monotonic() - began)
            await asyncio.sleep(0.01)

    async def looks(self) -> None:
        while not self.stopped:
            began = time.monotonic()
            async with self.http.get("/health") as answer:
                document = await answer.json(content_type=None)
                self.slowest_look_s = max(self.slowest_look_s, time.monotonic() - began)
                self.statuses.append((time.monotonic(), answer.status, document.get("notes", [])))
            await asyncio.sleep(0.05)

    def said(self, title: str, since: float) -> float | None:
        """How long after `since` health named the server."""
        moments = [at for at, _, reasons in self.statuses if at > since and any(title in reason for reason in reasons)]
        return moments[0] - since if moments else None


@asynccontextmanager
async def loaded(nats: EmbeddedNats, database: str, home: Path) -> AsyncIterator[Load]:
    servers = Servers(nats=nats.url, monitors=(nats.monitor_url,), database=database, ours=False)
    settings = Settings(home=home, region="eu", tenant="acme", **SETTINGS)
    async with serving(servers, settings, Parts()) as service:
        assert service.http is not None
        assert service.recorder is not None
        async with aiohttp.ClientSession(service.http.url) as http:
            load = Load(service, service.recorder, http)
            tasks = [asyncio.create_task(work()) for work in (load.records, load.ingests, load.queries, load.looks)]
            try:
                yield load
            finally:
                load.stopped = True
                await asyncio.gather(*tasks)


def frozen(server: EmbeddedNats | EmbeddedPostgres) -> tuple[Away, Away]:
    """All of its processes stopped, and going on."""

    async def stop() -> None:
        for process in [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]:
            os.kill(process.pid, signal.SIGSTOP)

    async def go_on() -> None:
        for process in [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]:
            os.kill(process.pid, signal.SIGCONT)

    return stop, go_on


@pytest.mark.parametrize("how", ["stopped", "frozen"])
@pytest.mark.parametrize("title", ["PostgreSQL", "NATS"])
async def test_a_server_is_away_under_load_and_everything_catches_up(
    title: str, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with stack.folder() as home:
        async with EmbeddedPostgres(home, durable=False) as postgres, EmbeddedNats(home) as nats:
            server: EmbeddedNats | EmbeddedPostgres = postgres if title == "PostgreSQL" else nats
            away, back = (server.stop, server.start) if how == "stopped" else frozen(server)
            async with loaded(nats, postgres.url, home) as load:
                await until(lambda: load.recorded > 100 and load.answered > 10, "a load")
                projector = load.service.projector
                assert projector is not None
                recorded, began = load.recorded, time.monotonic()
                await away()
                await until(lambda: load.said(title, began), f"health names {title}", within_s=10)
                said_s = load.said(title, began)
                assert said_s is not None
                await asyncio.sleep(max(0.0, began + OUTAGE_S - time.monotonic()))
                # Recorded and durable, whatever is away.
                await load.recorder.record(failed(0)).reached(Ack.SPOOLED)
                load.recorded += 1
                assert load.recorded > recorded + 100
                await back()
                back_at = time.monotonic()
                await until(lambda: load.statuses[-1][1] == 200 and load.statuses[-1][0] > back_at, "healthy again")
                await until(lambda: projector.state is ProjectorState.LIVE)
                await load.recorder.record(failed(0)).reached(Ack.PROJECTED)
                load.recorded += 1
                caught_up_s = time.monotonic() - back_at
                answered = load.answered
                await until(lambda: load.answered > answered + 10, "queries are answered")
                status = await load.service.client.request(STATUS, b"", timeout=5)
                assert orjson.loads(status.data)["gaps"] == 0, "subscribers have subscribed again by themselves"
            with capsys.disabled():
                print(
                    f"\n  {title} {how} for {OUTAGE_S:g} s: said after {said_s:.2f} s, all projected"
                    f" {caught_up_s:.1f} s after its return; {load.unreachable} queries told so, the slowest took"
                    f" {load.slowest_query_s:.1f} s, of health {load.slowest_look_s:.1f} s"
                )
            assert load.slowest_query_s < LONGEST_QUERY_S
            assert load.slowest_look_s < LONGEST_QUERY_S
            assert all(status in (200, 503) for _, status, _ in load.statuses)
            await _nothing_is_lost_or_doubled(nats, postgres.url, home, load)


async def _nothing_is_lost_or_doubled(nats: EmbeddedNats, database: str, home: Path, load: Load) -> None:
    servers = Servers(nats=nats.url, monitors=(), database=database, ours=False)
    async with serving(servers, Settings(home=home)) as service:
        assert await caught_up(service, within_s=stack.DEADLINE_S)
        session = await connect_session(database, role=stack.ROLE)
        live, memory = await digest_postgres(session), await digest_memory(service.client)
        await session.close()
        assert live.tables == memory.tables
        assert live.deadletters == 0
        # As many rows as events, and each event is one row: none is lost, and none is there twice.
        assert live.rows["circuit_breaker_events"] == load.recorded + load.taken
