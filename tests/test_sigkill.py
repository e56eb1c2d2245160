"""A projector killed again and again in the middle of its work leaves the tables as if nothing had happened."""

import asyncio
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import stack
from stack import connected, failed, nats_server, options, projecting, until

from relight.engine.embedded.postgres import EmbeddedPostgres
from relight.engine.recorder.recorder import Recorder
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.digest import digest_memory, digest_postgres
from relight.engine.tables.migrate import migrate
from relight.events.decisions import DecisionBegun, DecisionCheckpointed, DecisionOutcomeKnown, Outcome

EVENTS = 12_000
KILLS = 10
BATCH = 40
SEED = 20_261_123


def _events(n: int) -> Any:
    match n % 4:
        case 0:
            return failed(n, f"service {n % 97}")
        case 1:
            return DecisionBegun(decision=f"d{n // 4}", decision_type="refund", agent="a", context={"n": n})
        case 2:
            return DecisionCheckpointed(decision=f"d{n // 4}", checkpoint_type="step", state_snapshot={"n": n})
        case _:
            return DecisionOutcomeKnown(decision=f"d{n // 4}", outcome=Outcome.SUCCESS, latency_ms=n)


async def test_ten_kills_of_the_projector_leave_equal_digests_and_memory_agrees_with_postgresql_stopped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    chance = random.Random(SEED)
    with stack.folder() as home:
        async with EmbeddedPostgres(home, durable=True) as postgres, nats_server(sync_always=False) as nats:
            connection = await asyncpg.connect(postgres.url)
            await migrate(connection)
            async with connected(nats) as client:
                async with Recorder(options(nats, home / "spool")) as recorder:
                    for n in range(EVENTS):
                        recorder.record(_events(n))
                    await until(lambda: recorder.health().exposed_events == 0, "all is on the stream")
                last = (await client.jetstream().stream_info("EV")).state.last_seq
                positions: list[int] = []
                while len(positions) < KILLS:
                    positions.append(await _killed_at(nats.url, postgres.url, connection, chance, last, len(positions)))
                with capsys.disabled():
                    print(f"\n  seed {SEED}: killed at {positions} of {last}")
                assert all(0 < seq < last for seq in positions)
                assert positions == sorted(positions)
                began, folded_from = time.monotonic(), positions[-1]
                async with projecting(nats, postgres.url, batch_events=BATCH) as projected:
                    held = await projected.digests_agree()
                    with capsys.disabled():
                        rate = (last - folded_from) / (time.monotonic() - began)
                        print(f"  then {rate:,.0f} events/s in batches of {BATCH}, both digests included")
                    assert await projected.rows("SELECT * FROM publisher_gaps") == []
                    assert held.deadletters == 0
                session = await connect_session(postgres.url, role=stack.ROLE)
                before = await digest_postgres(session)
                await session.close()
                await connection.close()
                await postgres.stop()
                assert (await digest_memory(client)).tables == before.tables == held.tables


async def _killed_at(
    nats_url: str, database_url: str, connection: Any, chance: random.Random, last: int, kills: int
) -> int:
    """Runs a projector until a random moment of its share of the way, and gives the position that it left."""
    reach = last * (kills + chance.uniform(0.1, 0.9)) / (KILLS + 1)
    child = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("projecting_child.py")), nats_url, database_url, str(BATCH)]
    )
    try:
        await until(lambda: _beyond(connection, reach), f"a projector comes to {reach:.0f}")
        await asyncio.sleep(chance.uniform(0, 0.02))  # anywhere in a batch, which takes about so long
    finally:
        child.kill()
        await asyncio.to_thread(child.wait)
    return int(await connection.fetchval("SELECT seq FROM projection_positions"))


async def _beyond(connection: Any, seq: float) -> bool:
    return bool((await connection.fetchval("SELECT max(seq) FROM projection_positions") or 0) > seq)
