"""Two processes are restarted one after the other under load, and whoever asks or records does not notice."""

import asyncio
import time
from dataclasses import dataclass, field

import aiohttp
import asyncpg
import pytest
import stack
from serving_process import Served, served
from stack import connected, failed, nats_server, options, until

from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.digest import digest_memory, digest_postgres

RESTARTS = 3
QUERY = "/health"
PROBE_EVERY_S = 0.1
UNREADY_S = 0.6
"""Longer than it takes the balancer to notice."""


@dataclass
class Balancer:
    """Sends each request to one that was ready when it last looked; never asks twice."""

    http: aiohttp.ClientSession
    backends: list[Served]
    ready: list[Served] = field(default_factory=list)
    answered: int = 0
    failed: list[str] = field(default_factory=list)
    turn: int = 0
    stopped: bool = False

    async def probe(self) -> None:
        while not self.stopped:
            states = await asyncio.gather(*(self._is_ready(one) for one in self.backends))
            self.ready = [one for one, ready in zip(self.backends, states, strict=True) if ready]
            await asyncio.sleep(PROBE_EVERY_S)

    async def _is_ready(self, one: Served) -> bool:
        return (await one.get("/readyz"))[0] not in (0, 503)

    async def ask(self) -> None:
        while not self.stopped:
            self.turn += 1
            one = self.ready[self.turn % len(self.ready)]
            try:
                async with self.http.get(one.url + QUERY) as answer:
                    document = await answer.json(content_type=None)
                if answer.status == 200:
                    self.answered += 1
                else:
                    self.failed.append(f"{answer.status} {document}")
            except aiohttp.ClientError as error:
                self.failed.append(repr(error))
            await asyncio.sleep(0.02)


async def test_three_restarts_under_load_fail_no_request_and_lose_no_event(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with nats_server() as nats, connected(nats) as client, aiohttp.ClientSession() as http:
        with stack.folder() as folder:
            settings = {"unready_s": UNREADY_S, "region": "eu", "tenant": "acme"}
            async with (
                served(folder / "one", nats=nats, database=database, **settings) as one,
                served(folder / "two", nats=nats, database=database, **settings) as two,
                Recorder(options(nats, folder / "spool")) as recorder,
            ):
                await asyncio.gather(one.ready(), two.ready())
                balancer = Balancer(http, [one, two])
                probing = asyncio.create_task(balancer.probe())
                await until(lambda: len(balancer.ready) == 2)
                asking = [asyncio.create_task(balancer.ask()) for _ in range(3)]
                load = Load(recorder)
                loading = [asyncio.create_task(load.records()), asyncio.create_task(load.watches(database))]
                for restart in range(RESTARTS):
                    restarted = balancer.backends[restart % 2]
                    restarted.signal()
                    assert await restarted.ended() == 0, restarted.errors
                    restarted.start()
                    await restarted.ready()
                    await until(lambda: len(balancer.ready) == 2, "the balancer finds it again")
                balancer.stopped = load.stopped = True
                await asyncio.gather(probing, *asking, *loading)
                await recorder.record(failed(load.recorded)).reached(Ack.PROJECTED)
                with capsys.disabled():
                    print(
                        f"\n  {RESTARTS} restarts: {balancer.answered} requests answered, {len(balancer.failed)}"
                        f" failed; {load.recorded} events, the longest stall {load.stall_s * 1_000:.0f} ms"
                    )
                assert balancer.failed == []
                session = await connect_session(database, role=stack.ROLE)
                live, memory = await digest_postgres(session), await digest_memory(client)
                gaps = await session.fetchval("SELECT count(*) FROM publisher_gaps")
                await session.close()
                assert live.tables == memory.tables
                assert live.rows["circuit_breaker_events"] == load.recorded + 1
                assert (gaps, live.deadletters) == (0, 0)


@dataclass
class Load:
    recorder: Recorder
    recorded: int = 0
    stall_s: float = 0.0
    stopped: bool = False

    async def records(self) -> None:
        while not self.stopped:
            for _ in range(4):
                self.recorder.record(failed(self.recorded))
                self.recorded += 1
            await asyncio.sleep(0.02)

    async def watches(self, database: str) -> None:
        """The longest time that the position stood still, though events came all the time."""
        connection = await asyncpg.connect(database)
        seen, since = None, time.monotonic()
        while not self.stopped:
            seq = await connection.fetchval("SELECT seq FROM projection_positions")
            now = time.monotonic()
            if seq != seen:
                seen, since = seq, now
            self.stall_s = max(self.stall_s, now - since)
            await asyncio.sleep(0.01)
        await connection.close()
