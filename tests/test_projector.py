"""The projector against real servers: what cannot be folded is put aside, and nothing else is held up or lost."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
import stack
from folding import event_id
from nats.aio.client import Client
from stack import Projecting, connected, encoded, failed, nats_server, options, projecting, until

from relight.engine.clock import Clock
from relight.engine.embedded.postgres import EmbeddedPostgres
from relight.engine.errors import DeadLettered, Fenced
from relight.engine.log.chain import PublisherHead, body_sha256
from relight.engine.log.reader import BEGINNING, Message, Reader
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.deadletters import count_open, dead_letters_at, list_dead_letters, retry
from relight.engine.tables.folding import Folded
from relight.engine.tables.migrate import migrate
from relight.engine.tables.projector import Projector, ProjectorState
from relight.events.breakers import BreakerFailed, BreakerOpened
from relight.events.envelope import GENESIS
from relight.events.errors import Reason
from relight.projections import breakers

NOW = datetime.now(UTC)


@pytest.fixture
def spools() -> Iterator[Path]:
    with stack.folder() as path:
        yield path / "spool"


def id_now(ordinal: int, *, ahead_s: float = 0) -> str:
    return event_id(int((NOW + timedelta(seconds=ahead_s)).timestamp() * 1_000), ordinal)


class Publisher:
    """Writes a chain of its own by hand, straight to the stream."""

    def __init__(self, client: Client, name: str = "p-test") -> None:
        self.client = client
        self.name = name
        self.pseq = 0
        self.prev = GENESIS

    def next(self, data: Any, /, **changes: Any) -> tuple[str, bytes]:
        self.pseq += 1
        id = changes.pop("id", id_now(self.pseq))
        subject, body = encoded(data, id=id, time=NOW, pseq=self.pseq, prev=self.prev, publisher=self.name)
        if changes:
            document = orjson.loads(body) | changes
            body = orjson.dumps({name: value for name, value in document.items() if value is not None})
        self.prev = body_sha256(body)
        return subject, body

    async def publish(self, data: Any, /, **changes: Any) -> int:
        subject, body = self.next(data, **changes)
        return await self.send(subject, body)

    async def send(self, subject: str, body: bytes) -> int:
        return (await self.client.jetstream().publish(subject, body)).seq


async def services(projected: Projecting) -> list[str]:
    rows = await projected.rows("SELECT details FROM circuit_breaker_events ORDER BY event_id")
    return [orjson.loads(row["details"])["n"] for row in rows]


async def test_what_cannot_be_decoded_is_a_dead_letter_and_holds_up_nothing(database: str) -> None:
    async with nats_server() as nats, projecting(nats, database) as projected:
        publisher, client = Publisher(projected.client), projected.client
        await publisher.publish(failed(1))
        expected = {
            await publisher.send("ev.eu.breakers.acme.failed", b"\xff no event"): Reason.NOT_AN_EVENT,
            await publisher.send("ev.eu.breakers.acme.failed", b"[]"): Reason.NOT_AN_EVENT,
            await publisher.publish(failed(2), type="breakers.exploded"): Reason.UNKNOWN_TYPE,
            await publisher.publish(failed(3), dataversion=9): Reason.FUTURE_VERSION,
            await publisher.publish(failed(4), data={"service_name": 5}): Reason.INVALID,
            await publisher.publish(failed(5), time="0001-01-01T00:00:00+05:30"): Reason.INVALID,
            await publisher.publish(failed(6), id=id_now(6, ahead_s=3_600)): Reason.CLOCK_AHEAD,
        }
        _, body = publisher.next(failed(7))
        expected[await publisher.send("ev.us.breakers.acme.failed", body)] = Reason.SUBJECT_MISMATCH
        await publisher.publish(failed(8))
        digest = await projected.digests_agree()
        assert digest.deadletters == len(expected)
        letters = await list_dead_letters(projected.session)
        assert {letter.seq: letter.reason for letter in letters} == expected
        assert await services(projected) == [1, 8]
        # A mismatched subject proves nothing about the publisher it names; every other envelope moves its head.
        assert await projected.rows("SELECT highest_pseq, broken_links FROM publisher_heads") == [
            {"highest_pseq": 8, "broken_links": 0}
        ]
        assert await projected.rows("SELECT first_pseq, last_pseq FROM publisher_gaps") == [
            {"first_pseq": 7, "last_pseq": 7}
        ]
        [(_, held)] = await dead_letters_at(projected.session, min(expected))
        assert held == b"\xff no event"
        assert (await client.jetstream().stream_info("EV")).state.last_seq == digest.seq


async def test_a_clock_an_hour_ahead_does_not_win_over_later_events(database: str) -> None:
    async with nats_server() as nats, projecting(nats, database) as projected:
        publisher = Publisher(projected.client)
        later = NOW + timedelta(seconds=3_600)
        seq = await publisher.publish(failed(1), id=id_now(1, ahead_s=3_600), time=later.isoformat())
        await publisher.publish(BreakerFailed(service_name="api", error_class="Real"))
        await projected.caught_up()
        assert await projected.rows("SELECT last_error_class FROM circuit_breaker_states") == [
            {"last_error_class": "Real"}
        ]
        assert await retry(projected.session, Clock()) == (0, 1)
        [letter] = await list_dead_letters(projected.session)
        assert (letter.seq, letter.reason) == (seq, Reason.CLOCK_AHEAD)

        class AnHourLater(Clock):
            def now_us(self) -> int:
                return super().now_us() + 3_600 * 1_000_000

        generation = "SELECT generation FROM projection_positions"
        before = await projected.session.fetchval(generation)
        assert await retry(projected.session, AnHourLater()) == (1, 0)
        assert await projected.session.fetchval(generation) == before + 1, "answers at this position are others now"
        assert len(await projected.rows("SELECT FROM circuit_breaker_events")) == 2


async def test_what_the_store_refuses_is_found_by_bisecting_and_is_the_only_one(database: str) -> None:
    check = "CHECK (service_name <> 'refused')"
    await _alter(database, f"ALTER TABLE circuit_breaker_events ADD CONSTRAINT refuses {check}")
    async with nats_server() as nats, connected(nats) as client:
        publisher = Publisher(client)
        await asyncio.gather(*(publisher.publish(failed(n, "refused" if n == 617 else "api")) for n in range(1, 1_001)))
        async with projecting(nats, database) as projected:
            await projected.caught_up()
            [letter] = await list_dead_letters(projected.session)
            assert (letter.reason, letter.pseq, letter.projection) == (Reason.STORE_REFUSED, 617, "breakers")
            assert "refuses" in letter.detail
            assert sorted(await services(projected)) == [n for n in range(1, 1_001) if n != 617]
            [head] = await projected.rows("SELECT contiguous_pseq FROM publisher_heads")
            assert head == {"contiguous_pseq": 1_000}
            assert await projected.rows("SELECT * FROM publisher_gaps") == []
            assert await retry(projected.session, Clock()) == (0, 1)
            await _alter(database, "ALTER TABLE circuit_breaker_events DROP CONSTRAINT refuses")
            assert await retry(projected.session, Clock(), seq=letter.seq) == (1, 0)
            assert await count_open(projected.session) == 0
            assert len(await list_dead_letters(projected.session, resolved=True)) == 1
            await projected.digests_agree()


async def _alter(database: str, statement: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute(statement)
    await connection.close()


async def test_an_event_whose_handler_raises_is_a_dead_letter_and_waiting_for_it_says_so(
    database: str, spools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises_on_two(event: Any) -> Iterator[Any]:
        if event.data.details["n"] == 2:
            raise ZeroDivisionError("bug")
        yield from breakers.failed(event)

    async with nats_server() as nats, projecting(nats, database) as projected:
        async with Recorder(options(nats, spools)) as recorder:
            with monkeypatch.context() as patched:
                patched.setitem(breakers.projection.handlers, "breakers.failed", raises_on_two)
                one, two, three = (recorder.record(failed(n)) for n in (1, 2, 3))
                await three.reached(Ack.PROJECTED)
                await one.reached(Ack.PROJECTED)
                with pytest.raises(DeadLettered, match="projection_failed"):
                    await two.reached(Ack.PROJECTED)
                assert await retry(projected.session, Clock()) == (0, 1)
            assert await retry(projected.session, Clock()) == (1, 0)
            await two.reached(Ack.PROJECTED)
            assert sorted(await services(projected)) == [1, 2, 3]
            assert await projected.rows("SELECT * FROM publisher_gaps") == []
        await projected.digests_agree()


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


async def test_late_and_healed_events_close_their_gaps_and_the_tables_are_as_undisturbed(database: str) -> None:
    async with nats_server() as nats, projecting(nats, database) as projected:
        publisher = Publisher(projected.client)
        chain = [publisher.next(failed(n)) for n in range(1, 21)]
        for n in (*range(1, 4), 10, 20):
            await publisher.send(*chain[n - 1])
        await projected.caught_up()
        gaps = "SELECT first_pseq, last_pseq FROM publisher_gaps ORDER BY 1"
        assert [tuple(row.values()) for row in await projected.rows(gaps)] == [(4, 9), (11, 19)]
        noticed = await projected.rows("SELECT DISTINCT noticed_at FROM publisher_gaps WHERE first_pseq = 4")
        await publisher.send(*chain[5])
        await projected.caught_up()
        assert [tuple(row.values()) for row in await projected.rows(gaps)] == [(4, 5), (7, 9), (11, 19)]
        assert await projected.rows("SELECT DISTINCT noticed_at FROM publisher_gaps WHERE first_pseq < 10") == noticed
        for n in (5, 19, 9, 4, 7, 8, *range(18, 10, -1)):
            await publisher.send(*chain[n - 1])
        js = projected.client.jetstream()
        for subject, body in chain[:5]:  # healed though it was never lost: the same bytes under a fresh message id
            await js.publish(subject, body, headers={"Nats-Msg-Id": f"{orjson.loads(body)['id']}#h1"})
        digest = await projected.digests_agree()
        assert await projected.rows(gaps) == []
        assert await projected.rows("SELECT highest_pseq, contiguous_pseq, broken_links FROM publisher_heads") == [
            {"highest_pseq": 20, "contiguous_pseq": 20, "broken_links": 0}
        ]
        undisturbed = Folded()
        undisturbed.fold(Message(n, int(NOW.timestamp()) * 10**9, *message) for n, message in enumerate(chain, 1))
        assert digest.rows["circuit_breaker_events"] == 20
        rows = [row async for row in _rows(projected)]
        assert rows == list(undisturbed.tables.rows(breakers.EVENTS))


async def _rows(projected: Projecting) -> Any:
    async with projected.session.transaction():
        async for row in stack.read_rows(projected.session, breakers.EVENTS):
            yield row


async def test_a_fork_and_refusals_that_arrive_late_are_counted(database: str) -> None:
    async with nats_server() as nats, projecting(nats, database) as projected:
        publisher = Publisher(projected.client)
        chain = [publisher.next(failed(n)) for n in range(1, 4)]
        gap = publisher.next(
            stack.RecorderGap(
                publisher="p-test", refused_events=7, first_refused_at=NOW, last_refused_at=NOW, cause="full"
            )
        )
        for message in (*chain, publisher.next(failed(5)), gap, gap):
            subject, body = message
            await publisher.send(subject, body)
        publisher.pseq = 4
        await publisher.send(*publisher.next(failed(55)))  # number 5 again, with other bytes
        await projected.caught_up()
        assert await projected.rows("SELECT refused_events, broken_links FROM publisher_heads") == [
            {"refused_events": 7, "broken_links": 0}
        ]
        forks = await projected.rows("SELECT publisher, pseq FROM publisher_forks")
        assert forks == [{"publisher": "p-test", "pseq": 5}]


def test_a_head_takes_note_of_numbers_in_any_order() -> None:
    head = PublisherHead()
    for pseq in range(20_000, 0, -2):
        head.see(pseq, GENESIS, "x")
    assert len(head.missing) <= 10_000
    for pseq in range(1, 20_000, 2):
        assert head.see(pseq, GENESIS, "x") is (pseq % 2 == 1)
    assert (head.missing, head.contiguous_pseq) == ([], 20_000)


async def test_rulings_and_observations_by_hand_agree_in_both_stores(database: str) -> None:
    async with nats_server() as nats, projecting(nats, database) as projected:
        publisher = Publisher(projected.client)
        for n in range(1, 30):
            await publisher.publish(failed(n, f"s{n % 3}"))
        prev = GENESIS
        for rev in range(1, 6):
            ruling = BreakerOpened(service_name="s1", reason=str(rev), failure_count=rev, next_retry_at=NOW)
            subject, body = encoded(ruling, id=id_now(100 - rev), time=NOW, rev=rev, prev=prev)
            prev = body_sha256(body)
            await publisher.send(subject, body)
        await projected.digests_agree()
        assert await projected.rows(
            "SELECT reason, ruling_rev FROM circuit_breaker_states WHERE state IS NOT NULL"
        ) == [{"reason": "5", "ruling_rev": 5}]


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
