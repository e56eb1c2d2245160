"""The projector: what it cannot apply, what comes late or out of order, and what it counts."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
import stack
from hand_published import NOW, Publisher, id_now, services
from stack import Projecting, connected, encoded, failed, nats_server, options, projecting

from relight.engine.clock import Clock
from relight.engine.errors import DeadLettered
from relight.engine.log.chain import PublisherHead, body_sha256
from relight.engine.log.reader import Message
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.tables.deadletters import count_open, dead_letters_at, list_dead_letters, retry
from relight.engine.tables.folding import Folded
from relight.events.breakers import BreakerFailed, BreakerOpened
from relight.events.envelope import GENESIS
from relight.events.errors import Reason
from relight.projections import breakers


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
