"""Projectors that end, are fenced, take over or lose their servers: the tables are right all the same."""

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import stack
from hand_published import Publisher, services
from stack import Projecting, connected, failed, nats_server, options, projecting, until

from relight.engine.embedded.postgres import EmbeddedPostgres
from relight.engine.errors import Fenced
from relight.engine.log.reader import BEGINNING, Reader
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.migrate import migrate
from relight.engine.tables.projector import Projector, ProjectorState


async def test_of_two_projectors_one_is_fenced_and_the_tables_are_right(database: str, spools: Path) -> None:
    async with nats_server() as nats, projecting(nats, database, batch_events=50) as projected:
        async with connected(nats) as client, Recorder(options(nats, spools)) as recorder:
            other = Projector(client, lambda: connect_session(database, role=stack.ROLE), batch_events=50)
            second = asyncio.create_task(other.run(stand_by=False))
            n = 0
            while not second.done() and projected.projector.state is not ProjectorState.STANDBY:
                n += 1
                await recorder.record(failed(n)).reached(Ack.REPLICATED)
            if second.done():
                with pytest.raises(Fenced, match="steps back"):
                    await second
            for more in range(500):
                recorder.record(failed(n + 1 + more))
            await until(lambda: recorder.health().exposed_events == 0)
            await until(lambda: _all_projected(projected), "one of them folds all of it")
            second.cancel()
            await asyncio.wait([second])
            memory, postgres = await stack.digest_memory(client), await stack.digest_postgres(projected.session)
            assert memory.tables == postgres.tables


async def _all_projected(projected: Projecting) -> bool:
    last_seq = (await projected.client.jetstream().stream_info("EV")).state.last_seq
    rows = await projected.rows("SELECT seq FROM projection_positions")
    return bool(rows and rows[0]["seq"] == last_seq)


async def test_the_one_that_stands_by_takes_over_when_the_first_is_gone(
    database: str, spools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relight.engine.tables.projector.STANDBY_S", 0.3)
    async with nats_server() as nats, projecting(nats, database) as first, projecting(nats, database) as second:
        async with Recorder(options(nats, spools)) as recorder:
            n = 0
            standby = ProjectorState.STANDBY
            while standby not in (first.projector.state, second.projector.state):
                n += 1
                await recorder.record(failed(n)).reached(Ack.REPLICATED)
            gone, left = (second, first) if first.projector.state is standby else (first, second)
            gone.task.cancel()
            await asyncio.wait([gone.task])
            for more in range(200):
                recorder.record(failed(n + 1 + more))
            await recorder.record(failed(0)).reached(Ack.PROJECTED)
            assert left.projector.state is ProjectorState.LIVE
            await left.digests_agree()


async def test_both_servers_killed_under_load_and_everything_catches_up(spools: Path) -> None:
    with stack.folder() as home:
        async with EmbeddedPostgres(home) as postgres, nats_server() as nats:
            connection = await asyncpg.connect(postgres.url)
            await migrate(connection)
            await connection.close()
            async with projecting(nats, postgres.url, batch_events=200) as projected:
                async with Recorder(options(nats, spools)) as recorder:
                    loading = asyncio.create_task(_load(recorder, 6_000))
                    for server in (postgres, nats, postgres):
                        seq = projected.projector.position.seq if projected.projector.position else 0
                        await until(lambda: (projected.projector.position or NONE).seq > seq + 300)  # noqa: B023
                        await server.kill()
                        if server is postgres:
                            await until(lambda: projected.projector.state is ProjectorState.FAILED, "it is noticed")
                        await server.start()
                    await loading
                    await until(lambda: recorder.health().exposed_events == 0, "drained")
                    await until(lambda: projected.projector.state is ProjectorState.LIVE, "live again")
                projected.session = await connect_session(postgres.url, role=stack.ROLE)
                digest = await projected.digests_agree()
                assert digest.rows["circuit_breaker_events"] == 6_000
                assert await projected.rows("SELECT * FROM publisher_gaps") == []


class NONE:
    seq = 0


async def _load(recorder: Recorder, events: int) -> None:
    for n in range(events):
        recorder.record(failed(n))
        if n % 20 == 19:
            await asyncio.sleep(0.01)  # a load, not a wait: 2,000 events a second


async def test_cancelling_finishes_the_batch_in_hand(database: str) -> None:
    async with nats_server() as nats, connected(nats) as client:
        publisher = Publisher(client)
        await asyncio.gather(*(publisher.publish(failed(n)) for n in range(1, 501)))
        blocker = await asyncpg.connect(database)
        watching = await asyncpg.connect(database)  # one transaction sees one and the same pg_stat_activity
        held = blocker.transaction()
        await held.start()
        await blocker.execute("LOCK TABLE circuit_breaker_events IN ACCESS EXCLUSIVE MODE")
        async with projecting(nats, database, batch_events=100) as projected:
            try:
                await until(lambda: _waits_for_lock(watching), "the first batch is being written")
                projected.task.cancel()
                projected.task.cancel()
                await asyncio.wait([projected.task], timeout=0.1)
                assert not projected.task.done()
            finally:
                await held.rollback()
            await asyncio.wait([projected.task], timeout=5)
            assert projected.task.cancelled()
            [position] = await projected.rows("SELECT seq FROM projection_positions")
            assert 0 < position["seq"] == len(await services(projected)) <= 100
        await blocker.close()
        await watching.close()


async def _waits_for_lock(connection: Any) -> bool:
    waiting = await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    return bool(waiting)


@pytest.mark.parametrize("ticks", range(6))
async def test_a_cancellation_that_comes_together_with_a_message_is_not_swallowed(ticks: int) -> None:
    """Found: with wait_for before Python 3.12 a projector that was told to stop could go on for ever."""
    async with nats_server() as nats, connected(nats) as client, Reader(client, BEGINNING) as reader:
        waiting = asyncio.create_task(reader._wait(10))
        await asyncio.sleep(0)
        reader._arrived.set()
        for _ in range(ticks):
            await asyncio.sleep(0)
        if waiting.cancel():
            await asyncio.wait([waiting])
            assert waiting.cancelled()
