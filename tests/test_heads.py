"""Heads as the projector keeps them: forks by number, tails in doubt, signs of life."""

import asyncio
from pathlib import Path

import pytest
import stack
from chained import Book, Written, publisher_of
from nats.aio.client import Client
from stack import Projecting, drained, failed, nats_server, options, projecting, until

from relight.engine.clock import Clock
from relight.engine.health.chains import look_at_chains
from relight.engine.log.chain import body_sha256
from relight.engine.recorder.left_spools import tell_of_spools, whole_spools
from relight.engine.recorder.recorder import Recorder
from relight.engine.spool.spool import Acked, Spool, Spooled
from relight.engine.tables import signs
from relight.engine.tables.recent import RecentHashes
from relight.events.recorder import RecorderDrained, RecorderLost


async def send(client: Client, *events: Written) -> None:
    for subject, body, _ in events:
        await client.jetstream().publish(subject, body)


async def test_a_fork_is_noticed_as_it_comes_once_and_by_number(database: str) -> None:
    """Of a copied spool both go on: each number that both used is a fork, however often it is read."""
    book, copied = Book(), Book()
    events = [book.event("p") for _ in range(5)]
    copied.heads, copied.events = dict(book.heads), 1_000
    here, there = [book.event("p") for _ in range(4)], [copied.event("p") for _ in range(3)]
    async with nats_server(sync_always=False) as nats, projecting(nats, database, batch_events=2) as projected:
        mixed = [event for pair in zip(here, there, strict=False) for event in pair]
        await send(projected.client, *events, *mixed, *here[3:], *there, events[2])
        await projected.caught_up()
        forks = await projected.rows("SELECT publisher, pseq FROM publisher_forks ORDER BY pseq")
        assert forks == [{"publisher": "p", "pseq": pseq} for pseq in (6, 7, 8)]
        found = await look_at_chains(projected.session)
        assert (found.forks, sorted(found.named_forks)) == (3, ["p 6", "p 7", "p 8"])


def test_only_so_many_hashes_are_remembered() -> None:
    recent = RecentHashes(10)
    for first in range(0, 100, 5):
        recent.add({"p": {first + n: f"{first + n}" for n in range(5)}})
    assert [recent.of("p", pseq) for pseq in (84, 90, 99)] == [None, "90", "99"]
    assert recent.of("q", 99) is None
    recent.add({"q": {n: "x" for n in range(50)}})
    assert (recent.of("p", 99), recent.of("q", 49)) == (None, "x")


async def quiet(projected: Projecting) -> None:
    """As if the last event, and the projector's beginning, were an hour ago."""
    await projected.session.execute("UPDATE publisher_heads SET seen_at = seen_at - interval '1 hour'")
    await projected.session.execute("UPDATE publisher_heads SET heard_at = heard_at - interval '1 hour'")
    await projected.session.execute("UPDATE projection_positions SET listens_since = now() - interval '1 hour'")


async def test_a_tail_is_in_doubt_until_somebody_knows_its_end(
    database: str, spools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signs, "SOON_S", 0.05)
    monkeypatch.setattr(signs, "EVERY_S", 0.05)
    async with nats_server(sync_always=False) as nats, projecting(nats, database) as projected:
        async with Recorder(options(nats, spools, spool_retention_s=0.05)) as recorder:
            recorder.record(failed(1))
            await drained(recorder)
            await projected.caught_up()
            publisher = recorder.publisher
            # It asks now and then how far it is projected, so it is alive though it says nothing.
            await until(lambda: _heard(projected), "it is heard of")
            await quiet(projected)
            await until(lambda: _doubts(projected, 0), "heard of again")
        await projected.caught_up()
        await quiet(projected)
        assert (await look_at_chains(projected.session)).doubts == 0, "it said that it ended"
        await projected.session.execute("UPDATE publisher_heads SET session = 'open'")
        found = await look_at_chains(projected.session)
        assert (found.doubts, found.named_doubts) == (1, [f"{publisher} after 3"])
        await projected.session.execute("UPDATE projection_positions SET listens_since = now()")
        assert (await look_at_chains(projected.session)).doubts == 0, "nobody has listened for long enough"


async def test_a_killed_process_leaves_no_doubt_while_its_spool_is_there(
    database: str, spools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs beside it tells that all of it is on the stream; of one that still holds something nobody does."""
    monkeypatch.setattr(signs, "SOON_S", 0.05)
    monkeypatch.setattr(signs, "EVERY_S", 0.05)
    book = Book()
    events = [book.event(publisher) for publisher in ("whole", "exposed", "whole", "exposed")]
    spools.mkdir()
    for publisher, acked in (("whole", 2), ("exposed", 1)):
        spool = Spool(spools / f"slot-{publisher}.db")
        spool.set_meta({"publisher": publisher})
        mine = [event for event in events if publisher_of(event) == publisher]
        rows = [Spooled(n, e[2], e[0], e[1], body_sha256(e[1]), 1) for n, e in enumerate(mine, start=1)]
        spool.commit(rows, acks=[Acked(1, acked, 9, 1)])
        spool.close()
    assert whole_spools(spools) == ["whole"]
    async with nats_server(sync_always=False) as nats, projecting(nats, database) as projected:
        await send(projected.client, *events)
        await projected.caught_up()
        await quiet(projected)
        assert (await look_at_chains(projected.session)).doubts == 2
        telling = asyncio.create_task(tell_of_spools(projected.client, spools))
        await until(lambda: _doubts(projected, 1), "the whole one is told of")
        assert (await look_at_chains(projected.session)).named_doubts == ["exposed after 2"]
        telling.cancel()


async def _heard(projected: Projecting) -> bool:
    return bool(await projected.session.fetchval("SELECT heard_at FROM publisher_heads"))


async def _doubts(projected: Projecting, doubts: int) -> bool:
    return (await look_at_chains(projected.session)).doubts == doubts


@pytest.mark.parametrize("says", ["drained", "drained of less", "lost"])
async def test_what_others_say_of_a_tail_ends_the_doubt(database: str, says: str) -> None:
    book = Book()
    events = [book.event("p") for _ in range(3)]
    last, sha256 = book.heads["p"]
    clock = Clock()
    said = {
        "drained": RecorderDrained(publisher="p", last_pseq=last, last_sha256=sha256),
        "drained of less": RecorderDrained(publisher="p", last_pseq=last - 1, last_sha256=sha256),
        "lost": RecorderLost(publisher="p", first_pseq=last + 1, events=1, decided_by="me", reason="its disk burned"),
    }[says]
    async with nats_server(sync_always=False) as nats, projecting(nats, database) as projected:
        await send(projected.client, *events)
        await projected.caught_up()
        await quiet(projected)
        assert (await look_at_chains(projected.session)).named_doubts == ["p after 3"]
        subject, body = stack.encoded(said, id=clock.next_id(), time=clock.now(), publisher="other", tenant="-")
        await send(projected.client, (subject, body, ""))
        await projected.caught_up()
        assert (await look_at_chains(projected.session)).doubts == (says == "drained of less")
        # One more comes after all: what was said of numbers up to there says nothing of those beyond.
        await send(projected.client, book.event("p"))
        await projected.caught_up()
        await quiet(projected)
        assert (await look_at_chains(projected.session)).doubts == (says != "drained")
