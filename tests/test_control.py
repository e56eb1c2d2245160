"""Control appends against real servers: of racing writers exactly one wins, whatever happens to the answers."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta

import orjson
import pytest
import stack
from nats.aio.client import Client
from proxy import Proxy, proxied
from stack import assert_chained, bodies, connected, nats_server, on_stream, options, until

from relight.engine.clock import Clock
from relight.engine.errors import AckTimeout, ControlError, Superseded, Unreachable
from relight.engine.log.control import ControlLog, Tail
from relight.engine.log.topology import STREAM, connect, stream_config
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.spool.spool import ControlCopy, Spool
from relight.events.breakers import BreakerClosed, BreakerOpened
from relight.events.errors import InvalidEvent

RETRY_AT = datetime(2030, 1, 1, tzinfo=UTC)


def opened(reason: str, service: str = "api") -> BreakerOpened:
    return BreakerOpened(service_name=service, reason=reason, failure_count=3, next_retry_at=RETRY_AT)


class Writer:
    """A client of its own, and the copies that its spool would get."""

    def __init__(self, client: Client, number: int) -> None:
        self.number = number
        self.copies: list[ControlCopy] = []
        self.log = ControlLog(client, region="eu", publisher=f"p-{number}", clock=Clock(), on_append=self.copies.append)

    async def tail(self) -> Tail:
        return await self.log.tail(BreakerOpened, tenant="acme", entity="api")

    async def race(self, after: Tail, reason: str, timeout_s: float = 20) -> Tail | None:
        """The new tail, or None when another was first."""
        try:
            return await self.log.append(
                opened(reason), after=after, tenant="acme", policy_version="1", timeout_s=timeout_s
            )
        except Superseded:
            return None


@asynccontextmanager
async def writers(url: str, count: int) -> AsyncIterator[list[Writer]]:
    async with AsyncExitStack() as stack_:
        found = []
        for number in range(count):
            client = await connect(url, name=f"writer {number}")
            stack_.push_async_callback(client.close)
            found.append(Writer(client, number))
        yield found


async def assert_consistent(client: Client, copies: list[ControlCopy]) -> list[dict[str, object]]:
    """The subject's chain is whole, no rev stands twice, and the winners' copies are what stands there."""
    messages = await on_stream(client)
    found = assert_chained(messages, "ctl.breaker.acme.api")
    assert [int(str(body["rev"])) for body in found] == list(range(1, len(found) + 1))
    assert len(found) == len(messages)
    standing = {message.seq: message.body for message in messages}
    assert {copy.seq: copy.body for copy in copies} == standing
    return found


async def test_of_twenty_racing_writers_exactly_one_wins_each_revision() -> None:
    async with nats_server(sync_always=False) as nats, connected(nats) as client, writers(nats.url, 20) as racers:
        after, chance = Tail(subject="ctl.breaker.acme.api"), random.Random(1)
        for revision in range(1, 61):
            order = chance.sample(racers, len(racers))
            outcomes = await asyncio.gather(*(racer.race(after, f"{racer.number}") for racer in order))
            [won] = [tail for tail in outcomes if tail is not None]
            assert won.rev == revision
            read = await racers[revision % 20].tail()
            assert (read.seq, read.rev, read.sha256) == (won.seq, won.rev, won.sha256)
            after = read
        found = await assert_consistent(client, [copy for racer in racers for copy in racer.copies])
        assert len(found) == 60
        assert len({body["source"] for body in found}) > 1


async def test_a_lost_answer_is_made_up_for_by_reading_the_chain() -> None:
    async with nats_server() as nats, connected(nats) as client, proxied(nats.url) as proxy:
        async with writers(proxy.url, 20) as racers:
            after = Tail(subject="ctl.breaker.acme.api")
            for revision in range(1, 9):
                outcomes = await _race_deaf(client, proxy, racers, after)
                [won] = [tail for tail in outcomes if tail is not None]
                assert won.rev == revision
                after = won
        assert proxy.swallowed_bytes > 0
        await assert_consistent(client, [copy for racer in racers for copy in racer.copies])


async def _race_deaf(client: Client, proxy: Proxy, racers: list[Writer], after: Tail) -> list[Tail | None]:
    """All append, the winner's event stands on the stream, and nobody is told; then the network is back."""
    proxy.deaf = True
    racing = [asyncio.create_task(racer.race(after, f"{racer.number}")) for racer in racers]
    js = client.jetstream()

    async def stands() -> bool:
        return bool((await js.stream_info(STREAM)).state.last_seq > after.seq)

    await until(stands, "one of them stands on the stream")
    assert not any(task.done() for task in racing)
    proxy.deaf = False
    proxy.cut()
    return await asyncio.gather(*racing)


async def test_a_server_killed_between_rounds_leaves_one_winner_each() -> None:
    async with nats_server() as nats, writers(nats.url, 5) as racers:
        async with connected(nats) as client:
            after = Tail(subject="ctl.breaker.acme.api")
            for revision in range(1, 6):
                racing = [asyncio.create_task(racer.race(after, f"{racer.number}")) for racer in racers]
                await asyncio.sleep(0)
                await nats.kill()
                await nats.start()
                [won] = [tail for tail in await asyncio.gather(*racing) if tail is not None]
                assert won.rev == revision
                after = won
            await assert_consistent(client, [copy for racer in racers for copy in racer.copies])


async def test_who_won_is_told_so_even_when_another_appended_on_top_meanwhile() -> None:
    async with nats_server() as nats, connected(nats) as client, proxied(nats.url) as proxy:
        async with writers(proxy.url, 1) as [slow], writers(nats.url, 1) as [fast]:
            empty = Tail(subject="ctl.breaker.acme.api")
            proxy.deaf = True
            racing = asyncio.create_task(slow.race(empty, "slow"))
            first = await until(lambda: _tail_if_any(fast), "the slow one's event stands")
            assert await fast.race(first, "fast") is not None
            proxy.deaf = False
            proxy.cut()
            won = await racing
            assert won is not None
            assert (won.seq, won.rev) == (first.seq, 1)
            assert await slow.race(won, "again") is None
            await assert_consistent(client, slow.copies + fast.copies)


async def _tail_if_any(writer: Writer) -> Tail | None:
    tail = await writer.tail()
    return tail if tail.seq else None


async def test_the_id_of_a_ruling_is_above_that_of_the_one_it_follows() -> None:
    async with nats_server() as nats, connected(nats) as client, writers(nats.url, 2) as [ahead, behind]:
        ahead.log._clock.observe(f"{_hex(30)}-7fff-8000-000000000000")
        first = await ahead.race(await ahead.tail(), "ahead of the others by half a minute")
        assert first is not None
        second = await behind.race(first, "follows")
        assert second is not None
        assert second.event is not None
        assert first.event is not None
        assert second.event.id > first.event.id
        await assert_consistent(client, ahead.copies + behind.copies)


def _hex(ahead_s: float) -> str:
    ms = f"{int((datetime.now(UTC) + timedelta(seconds=ahead_s)).timestamp() * 1_000):012x}"
    return f"{ms[:8]}-{ms[8:]}"


async def test_the_superseded_are_told_who_won() -> None:
    async with nats_server() as nats, connected(nats), writers(nats.url, 2) as [one, two]:
        empty = await one.tail()
        won = await one.race(empty, "first")
        assert won is not None
        assert won.event is not None
        with pytest.raises(Superseded, match=rf"revision 1 \({won.event.id}\)"):
            await two.log.append(opened("second"), after=empty, tenant="acme", policy_version="1")
        with pytest.raises(InvalidEvent, match="belongs on"):
            await two.log.append(opened("third", "db"), after=won, tenant="acme", policy_version="1")


async def test_a_stream_that_is_away_or_full_is_waited_for_and_then_named() -> None:
    async with nats_server() as nats, connected(nats) as client, writers(nats.url, 1) as [one]:
        js = client.jetstream()
        first = await one.race(await one.tail(), "first")
        assert first is not None
        config = stream_config()
        config.max_msgs = 1
        await js.update_stream(config=config)
        with pytest.raises(AckTimeout, match="maximum messages"):
            await one.race(first, "no room", timeout_s=0.5)
        racing = asyncio.create_task(one.race(first, "some room"))
        config.max_msgs = -1
        await js.update_stream(config=config)
        second = await racing
        assert second is not None
        await nats.kill()
        with pytest.raises(AckTimeout, match="outcome unknown"):
            await one.race(second, "away", timeout_s=0.3)
        with pytest.raises(Unreachable):
            await one.log.tail(BreakerOpened, tenant="acme", entity="api", timeout_s=0.3)
        racing = asyncio.create_task(one.race(second, "back"))
        await nats.start()
        third = await racing
        assert third is not None
        assert third.rev == 3
        await assert_consistent(client, one.copies)


async def test_what_is_no_ruling_on_a_control_subject_is_named_and_beats_nobody_silently() -> None:
    async with nats_server() as nats, connected(nats) as client, writers(nats.url, 1) as [one]:
        empty = await one.tail()
        await client.jetstream().publish("ctl.breaker.acme.api", b"garbage")
        with pytest.raises(ControlError, match="message 1"):
            await one.tail()
        with pytest.raises(Superseded, match="not_an_event"):
            await one.log.append(opened("mine"), after=empty, tenant="acme", policy_version="1")


async def test_a_copy_of_the_ruling_lies_in_the_writers_spool_and_it_is_projected(database: str) -> None:
    async with nats_server() as nats, stack.projecting(nats, database) as projected:
        with stack.folder() as path:
            async with Recorder(options(nats, path)) as recorder:
                tail = await _in(recorder, recorder.with_control(lambda log: _open(log, None)))
                tail = await _in(recorder, recorder.with_control(lambda log: _open(log, tail)))
                await recorder.ruling_projected(tail)
                await recorder.record(stack.failed(1)).reached(Ack.SPOOLED)
            spool = Spool(path / "slot-0.db", read_only=True)
            rows = spool._db.execute("SELECT subject, rev, id, body FROM control_copies ORDER BY rev").fetchall()
            spool.close()
        messages = [m for m in await on_stream(projected.client) if m.subject.startswith("ctl.")]
        assert [row[3] for row in rows] == [message.body for message in messages]
        assert [(row[0], row[1]) for row in rows] == [(tail.subject, 1), (tail.subject, 2)]
        assert await projected.rows("SELECT state, ruling_rev, reason FROM circuit_breaker_states") == [
            {"state": "closed", "ruling_rev": 2, "reason": "well"}
        ]
        [head] = await projected.rows("SELECT highest_pseq FROM publisher_heads WHERE publisher = $1", tail.subject)
        assert head == {"highest_pseq": 2}


async def _in(recorder: Recorder, coroutine: object) -> Tail:
    return await asyncio.wrap_future(recorder.in_loop(coroutine))  # type: ignore[arg-type]


async def _open(log: ControlLog, after: Tail | None) -> Tail:
    if after is None:
        start = await log.tail(BreakerOpened, tenant="acme", entity="api")
        return await log.append(opened("ill"), after=start, tenant="acme", policy_version="1", observed_seq=7)
    return await log.append(
        BreakerClosed(service_name="api", reason="well"), after=after, tenant="acme", policy_version="1"
    )


async def test_a_ruling_carries_what_replay_needs() -> None:
    async with nats_server() as nats, connected(nats) as client, writers(nats.url, 1) as [one]:
        decided = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
        await one.log.append(
            opened("x"), after=await one.tail(), tenant="acme", policy_version="7", observed_seq=99, decided_at=decided
        )
        [body] = bodies(await on_stream(client))
        assert (body["policyversion"], body["observedseq"], body["decidedat"]) == (
            "7",
            "99",
            "2026-01-02T03:04:05.000006Z",
        )
        assert orjson.loads(one.copies[0].body) == body
