"""Rulings that were lost: no old one becomes the last of its subject, and writers stay right whatever is put back."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from damage import flip
from healing_scene import ruled
from nats.aio.client import Client
from stack import connected, nats_server, until

from relight.engine.clock import Clock
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.errors import ControlError, Superseded
from relight.engine.log.control import ControlLog, Tail
from relight.engine.log.links import Link, link_of
from relight.engine.log.putting_back import put_back_rulings, tail_of
from relight.engine.log.reader import BEGINNING, Reader
from relight.engine.log.topology import STREAM
from relight.engine.spool.spool import ControlCopy
from relight.events.breakers import BreakerOpened

SUBJECT = "ctl.breaker.acme.api"


class Writer:
    """Rules on one subject, and keeps copies as a spool would."""

    def __init__(self, client: Client) -> None:
        self.copies: list[ControlCopy] = []
        self.log = ControlLog(client, region="eu", publisher="p", clock=Clock(), on_append=self.copies.append)

    async def tail(self, timeout_s: float = 20) -> Tail:
        return await self.log.tail(BreakerOpened, tenant="acme", entity="api", timeout_s=timeout_s)

    async def rule(self, after: Tail, timeout_s: float = 20) -> Tail:
        return await self.log.append(
            ruled(after.rev + 1, "api"), after=after, tenant="acme", policy_version="1", timeout_s=timeout_s
        )

    async def rules(self, times: int) -> Tail:
        after = await self.tail()
        for _ in range(times):
            after = await self.rule(after)
        return after


@asynccontextmanager
async def ruled_upon(times: int) -> AsyncIterator[tuple[EmbeddedNats, Client, Writer]]:
    async with nats_server(sync_always=False) as nats, connected(nats) as client:
        writer = Writer(client)
        await writer.rules(times)
        yield nats, client, writer


async def chain(client: Client) -> list[Link]:
    """The subject's messages, in the stream's order."""
    found = []
    async with Reader(client, BEGINNING) as reader:
        async for batch in reader.through((await reader.state()).last_seq, limit=1_000):
            found += [link for message in batch if (link := link_of(message)) is not None]
    return found


async def without(nats: EmbeddedNats, client: Client, seqs: set[int]) -> None:
    """The server reads over these from now on."""
    await nats.stop()
    flip(nats, seqs)
    await nats.start()
    await until(lambda: client.is_connected)


async def healed(client: Client, lost: list[ControlCopy], *, newest: int, patient: bool = True) -> list[int]:
    js = client.jetstream(timeout=5)
    return [copy.rev for copy in await put_back_rulings(client, js, lost, newest=newest, patient=patient)]


async def last_rev(client: Client) -> int | None:
    link = (await tail_of(client, client.jetstream(), SUBJECT)).link
    return None if link is None else link.pseq


async def test_an_interior_revision_is_put_back_under_the_newest_one() -> None:
    async with ruled_upon(9) as (nats, client, writer):
        await without(nats, client, {3, 4, 7})
        lost = [copy for copy in writer.copies if copy.rev in (3, 4, 7)]
        assert await healed(client, lost, newest=7) == [3, 4, 7]
        links = await chain(client)
        assert [link.pseq for link in links] == [1, 2, 5, 6, 8, 9, 3, 4, 7, 9]
        assert links[-1].sha256 == links[5].sha256
        assert (await writer.rule(await writer.tail())).rev == 10


async def test_a_tail_that_cannot_be_read_is_no_empty_subject_and_is_waited_for() -> None:
    """The server itself takes it for one: it would let a writer begin at revision 1 again."""
    async with ruled_upon(5) as (nats, client, writer):
        held = await writer.tail()
        await without(nats, client, {5})
        with pytest.raises(ControlError, match="cannot be read"):
            await writer.tail(timeout_s=0.3)
        waiting = asyncio.create_task(writer.tail())
        ruling = asyncio.create_task(writer.rule(held))
        await asyncio.sleep(0)
        assert await healed(client, writer.copies[:2], newest=5) == []
        assert await healed(client, writer.copies[4:], newest=5) == [5]
        assert (await waiting).rev == 5
        with pytest.raises(Superseded, match="revision 5 was lost and put back"):
            await ruling
        assert (await writer.rule(await writer.tail())).rev == 6


async def test_a_lost_tail_waits_for_the_revision_before_it_unless_nobody_has_that() -> None:
    async with ruled_upon(6) as (_, client, writer):
        js = client.jetstream()
        await js.purge_stream(STREAM, subject=SUBJECT)
        assert await healed(client, writer.copies[:3], newest=6) == []
        await put_back_rulings(client, js, writer.copies[:3], newest=3, patient=True)
        assert await last_rev(client) == 3
        assert await healed(client, writer.copies[5:], newest=6) == []
        assert await healed(client, [writer.copies[1], writer.copies[5]], newest=6) == [2]
        assert await last_rev(client) == 3
        assert await healed(client, writer.copies[4:], newest=6, patient=False) == [5, 6]
        assert await last_rev(client) == 6
        assert await healed(client, [writer.copies[3]], newest=4) == [4]
        assert await last_rev(client) == 6


async def test_where_another_ruling_took_the_place_of_a_lost_one_both_stand_and_it_stays_the_last() -> None:
    async with ruled_upon(4) as (_, client, writer):
        js, lost = client.jetstream(), writer.copies[2:4]
        await js.purge_stream(STREAM, subject=SUBJECT)
        assert await healed(client, writer.copies[:2], newest=2) == [1, 2]
        other = Writer(client)
        third = await other.rule(await other.tail())
        assert third.rev == 3
        assert await healed(client, lost, newest=4) == [3, 4]
        links = await chain(client)
        assert [link.pseq for link in links] == [1, 2, 3, 3, 4, 3]
        assert links[-1].sha256 == third.sha256 != links[3].sha256
        assert (await other.rule(await other.tail())).rev == 4


async def test_who_holds_the_old_tail_folds_again_and_who_won_before_is_told_so() -> None:
    async with ruled_upon(3) as (nats, client, writer):
        held = await writer.tail()
        won = await writer.rule(held)
        await without(nats, client, {2})
        assert await healed(client, [writer.copies[1]], newest=2) == [2]
        # Its answer was lost: it asks again after revision 3, behind which revision 2 stands now, too.
        body = writer.copies[3].body
        assert await writer.log._try(SUBJECT, body, writer.copies[3].id, held) == won.seq
        with pytest.raises(Superseded, match="revision 4 was lost and put back"):
            await writer.rule(won)
        again = await writer.tail()
        assert (again.rev, again.sha256) == (won.rev, won.sha256)
        assert again.seq > won.seq
        assert (await writer.rule(again)).rev == 5


async def test_writers_that_race_with_healing_win_each_revision_once() -> None:
    async with ruled_upon(20) as (nats, client, first):
        await without(nats, client, {seq for seq in range(2, 18) if seq % 3})
        lost = [copy for copy in first.copies if 2 <= copy.rev < 18 and copy.rev % 3]
        writers, chance, stop = [Writer(client) for _ in range(4)], random.Random(7), False

        async def write(writer: Writer) -> int:
            wins = 0
            while not stop:
                try:
                    await writer.rule(await writer.tail())
                    wins += 1
                except Superseded:
                    await asyncio.sleep(chance.random() / 100)
            return wins

        async def heal() -> None:
            for copy in lost:
                assert await healed(client, [copy], newest=copy.rev) == [copy.rev]

        writing = [asyncio.create_task(write(writer)) for writer in writers]
        await heal()
        stop = True
        wins = sum(await asyncio.gather(*writing))
        links = await chain(client)
        stood: dict[int, str] = {}
        highest = 0
        for link in links:
            assert stood.setdefault(link.pseq, link.sha256) == link.sha256, "no revision was ruled twice"
            highest = max(highest, link.pseq)
        assert sorted(stood) == list(range(1, 20 + wins + 1))
        assert links[-1].pseq == highest
        prev = {rev + 1: sha256 for rev, sha256 in stood.items()}
        assert all(link.prev == prev[link.pseq] for link in links if link.pseq > 1)
        assert wins > 0
