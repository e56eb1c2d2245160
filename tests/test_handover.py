"""Of several projectors one is at work; another takes its place at once when it ends, and soon when it hangs."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
import pytest
import stack
from stack import Projecting, connected, failed, nats_server, options, projecting, until

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.errors import Fenced
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.tables.connecting import Session, connect_session
from relight.engine.tables.leading import Look, try_to_lead
from relight.engine.tables.projector import Projector, ProjectorState

LIVE, STANDBY = ProjectorState.LIVE, ProjectorState.STANDBY
AT_WORK = """
SELECT count(*) FROM pg_locks JOIN pg_database AS d ON d.oid = database
WHERE locktype = 'advisory' AND granted AND datname = current_database()
"""


@asynccontextmanager
async def two(nats: EmbeddedNats, database: str) -> AsyncIterator[tuple[Projecting, Projecting]]:
    """One at work and one standing by."""
    async with projecting(nats, database) as first:
        await until(lambda: first.projector.state is LIVE)
        async with projecting(nats, database) as second:
            await until(lambda: second.projector.state is STANDBY)
            yield first, second


class Child:
    """A projector as a process, which says its states."""

    def __init__(self, nats: EmbeddedNats, database: str) -> None:
        script = str(Path(__file__).with_name("projecting_child.py"))
        self.process = subprocess.Popen(
            [sys.executable, script, nats.url, database, "20"], stdout=subprocess.PIPE, text=True
        )
        self.said: list[str] = []
        self.reading = asyncio.get_running_loop().run_in_executor(None, self._read)

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.said.extend([""])
        for line in self.process.stdout:
            self.said.append(line.strip())


@contextmanager
def child(nats: EmbeddedNats, database: str) -> Iterator[Child]:
    running = Child(nats, database)
    try:
        yield running
    finally:
        running.process.send_signal(signal.SIGCONT)
        running.process.kill()
        running.process.wait()


async def test_two_idle_projectors_are_quiet(database: str, caplog: pytest.LogCaptureFixture) -> None:
    async with nats_server() as nats, two(nats, database) as (first, second):
        states = set()
        until_s = time.monotonic() + 1.5
        while time.monotonic() < until_s:
            states.add((first.projector.state, second.projector.state))
            await asyncio.sleep(0.01)
        assert states == {(LIVE, STANDBY)}
        assert [record for record in caplog.records if record.levelname not in ("DEBUG", "INFO")] == []
        assert await first.rows(AT_WORK) == [{"count": 1}]


async def test_one_event_after_a_long_pause_wakes_nobody_who_stands_by(
    database: str, spools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not the pause that counts, but how long there was more to do."""
    monkeypatch.setattr("relight.engine.tables.projector.STANDBY_S", 0.3)
    async with nats_server() as nats, two(nats, database) as (first, second):
        async with Recorder(options(nats, spools)) as recorder:
            for n in range(3):
                await asyncio.sleep(0.4)  # longer than STANDBY_S
                await recorder.record(failed(n)).reached(Ack.PROJECTED)
        assert (first.projector.state, second.projector.state) == (LIVE, STANDBY)
        await until(lambda: second.projector.position == first.projector.position, "it knows where the other is")


async def test_the_next_is_at_work_moments_after_the_first_has_ended(
    database: str, spools: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with nats_server() as nats, two(nats, database) as (first, second):
        async with Recorder(options(nats, spools)) as recorder:
            loading = asyncio.create_task(_load(recorder, 1_000))
            await recorder.record(failed(-1)).reached(Ack.PROJECTED)
            first.task.cancel()
            await asyncio.wait([first.task])
            began = time.monotonic()
            await until(lambda: second.projector.state is LIVE, "it takes over")
            took_ms = (time.monotonic() - began) * 1_000
            await loading
            await stack.drained(recorder)
        await second.digests_agree()
        with capsys.disabled():
            print(f"\n  handed over in {took_ms:.0f} ms")


async def test_a_projector_that_is_killed_is_replaced_as_fast(
    database: str, spools: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with nats_server() as nats, connected(nats):
        with child(nats, database) as first:
            await until(lambda: LIVE in first.said)
            async with projecting(nats, database) as second, Recorder(options(nats, spools)) as recorder:
                await until(lambda: second.projector.state is STANDBY)
                loading = asyncio.create_task(_load(recorder, 1_500))
                await recorder.record(failed(-1)).reached(Ack.PROJECTED)
                began = time.monotonic()
                first.process.kill()
                await until(lambda: second.projector.state is LIVE, "it takes over")
                took_ms = (time.monotonic() - began) * 1_000
                await loading
                await stack.drained(recorder)
                await second.digests_agree()
        with capsys.disabled():
            print(f"\n  taken over in {took_ms:.0f} ms from a process that was killed")


async def test_one_that_is_frozen_blocks_nobody_and_is_fenced_when_it_wakes(
    database: str, spools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relight.engine.tables.projector.STANDBY_S", 0.5)
    async with nats_server() as nats, connected(nats):
        with child(nats, database) as frozen:
            await until(lambda: LIVE in frozen.said)
            async with projecting(nats, database) as other, Recorder(options(nats, spools)) as recorder:
                await until(lambda: other.projector.state is STANDBY)
                await recorder.record(failed(0)).reached(Ack.PROJECTED)
                frozen.process.send_signal(signal.SIGSTOP)
                loading = asyncio.create_task(_load(recorder, 600))
                await until(lambda: other.projector.state is LIVE, "it goes on in the other's place")
                await recorder.record(failed(1)).reached(Ack.PROJECTED)
                frozen.process.send_signal(signal.SIGCONT)
                await until(lambda: STANDBY in frozen.said, "the frozen one notices")
                await loading
                await stack.drained(recorder)
                await until(lambda: other.projector._leads, "and its lock is taken over as well")
                await recorder.record(failed(2)).reached(Ack.PROJECTED)
                assert other.projector.state is LIVE
                assert frozen.said[-1] == STANDBY
                await other.digests_agree()


async def test_one_that_is_frozen_in_the_middle_of_a_transaction_does_not_hold_the_position(
    database: str, spools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relight.engine.tables.projector.STANDBY_S", 0.5)
    async with nats_server() as nats, connected(nats):
        with child(nats, database) as frozen:
            await until(lambda: LIVE in frozen.said)
            async with projecting(nats, database) as other, Recorder(options(nats, spools)) as recorder:
                await until(lambda: other.projector.state is STANDBY)
                await recorder.record(failed(-1)).reached(Ack.PROJECTED)  # so that its statements are prepared
                blocker, watching = await asyncpg.connect(database), await asyncpg.connect(database)
                async with blocker.transaction():
                    await blocker.execute("LOCK TABLE circuit_breaker_events IN ACCESS EXCLUSIVE MODE")
                    receipt = recorder.record(failed(0))
                    await until(lambda: _waits_for_lock(watching), "it is in the middle of its transaction")
                    frozen.process.send_signal(signal.SIGSTOP)
                await blocker.close()
                await watching.close()
                await receipt.reached(Ack.PROJECTED)
                assert other.projector.state is LIVE
                frozen.process.send_signal(signal.SIGCONT)
                await until(lambda: frozen.said[-1] == STANDBY, "it stands by from now on")
                await recorder.record(failed(1)).reached(Ack.PROJECTED)
                await other.digests_agree()


async def _waits_for_lock(watching: Session) -> bool:
    waiting = await watching.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    return bool(waiting)


async def test_one_that_may_not_stand_by_says_that_another_is_at_work(database: str) -> None:
    async with nats_server() as nats, projecting(nats, database) as first:
        await until(lambda: first.projector.state is LIVE)
        other = Projector(first.client, lambda: connect_session(database, role=stack.ROLE))
        with pytest.raises(Fenced, match="another projector is at work"):
            await other.run(stand_by=False)


async def test_whoever_holds_the_lock_the_position_moves_by_compare_and_set(
    database: str, spools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both believe they are alone, as with an older release beside: one is fenced, and the tables are right."""

    async def leads(session: Session) -> Look:
        return Look(True, (await try_to_lead(session)).position)

    monkeypatch.setattr("relight.engine.tables.projector.try_to_lead", leads)
    async with nats_server() as nats, projecting(nats, database, batch_events=50) as first:
        async with connected(nats) as client, Recorder(options(nats, spools)) as recorder:
            other = Projector(client, lambda: connect_session(database, role=stack.ROLE), batch_events=50)
            second = asyncio.create_task(other.run(stand_by=False))
            n = 0
            while not second.done() and first.projector.state is not STANDBY:
                n += 1
                await recorder.record(failed(n)).reached(Ack.REPLICATED)
            if second.done():
                with pytest.raises(Fenced, match="moved the position"):
                    await second
            for more in range(500):
                recorder.record(failed(n + 1 + more))
            await stack.drained(recorder)
            await first.caught_up()
            second.cancel()
            await asyncio.wait([second])
            await first.digests_agree()


async def _load(recorder: Recorder, events: int) -> None:
    for n in range(events):
        recorder.record(failed(n))
        if n % 10 == 9:
            await asyncio.sleep(0.01)  # a load, not a wait: 1,000 events a second
