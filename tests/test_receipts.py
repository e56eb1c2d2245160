"""Receipts of failovers, id by id against what publishers that were killed had said, on a real server."""

import asyncio
import json
import shutil
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest_asyncio
import stack
from nats.aio.client import Client

from relight.engine.app.receipts import FleetReceipts
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.log.control import ControlLog
from relight.engine.log.numbers import Numbers
from relight.engine.log.topology import STREAM
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.heard import Heard
from relight.engine.regions.receipts.announced import Announced
from relight.engine.regions.receipts.closer import ReceiptCloser
from relight.engine.regions.receipts.followed import Receipts
from relight.engine.regions.receipts.looking import closing_of, opened
from relight.engine.regions.receipts.making import ReceiptMaker
from relight.engine.regions.receipts.models import Closing, PublisherClosing, PublisherReceipt, Receipt
from relight.engine.regions.receipts.rendering import lines
from relight.events.envelope import PLATFORM
from relight.events.failover import FailoverCompleted, FleetDeclared, Phase, StandIn

Named = list[tuple[int, str]]
CHILD = str(Path(__file__).with_name("receipts_child.py"))
SILENT_MS = 700


@dataclass
class Publisher:
    """A process, and what it said of its events: the truth that receipts are held against."""

    process: Process
    name: str
    acked: Named = field(default_factory=list)
    unacked: Named = field(default_factory=list)

    async def tell(self, line: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n".encode())
        async with asyncio.timeout(20):
            return json.loads(await self.process.stdout.readline())

    async def record(self, events: int) -> Named:
        return [(pseq, id) for pseq, id in await self.tell(f"record {events}")]

    async def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        await self.process.wait()

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


class Region:
    """What one region's service has of receipts."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.heard = Heard(recorder)
        self.announced = Announced(self.heard)
        self.receipts = Receipts(recorder, "agents")
        self.maker = ReceiptMaker(recorder, "agents", self.announced)
        self.closer = ReceiptCloser(
            recorder,
            self.receipts,
            self.announced,
            is_back=lambda region: True,
            every_s=0.1,
            silent_ms=SILENT_MS,
        )

    async def here(self, work: Coroutine[Any, Any, Any]) -> Any:
        return await asyncio.wrap_future(self.recorder.in_loop(work))


@dataclass
class Scene:
    """A server, two regions that live, and the processes of one that dies."""

    nats: EmbeddedNats
    client: Client
    us: Region
    ap: Region
    opened: AsyncExitStack

    async def publisher(self, spools: Path | None) -> Publisher:
        process = await asyncio.create_subprocess_exec(
            sys.executable, CHILD, self.nats.url, str(spools or "-"), stdin=PIPE, stdout=PIPE
        )
        self.opened.push_async_callback(_killed, process)
        assert process.stdout is not None
        async with asyncio.timeout(20):
            return Publisher(process, json.loads(await process.stdout.readline()))

    async def full(self, is_full: bool) -> None:
        """A stream that is full refuses what publishers send, while heartbeats go through."""
        js = self.client.jetstream()
        info = await js.stream_info(STREAM)
        info.config.max_msgs = info.state.messages if is_full else -1
        await js.update_stream(info.config)

    async def failed_over(self) -> tuple[StandIn, Receipt]:
        """From eu to us, with its receipt."""
        now, failover = datetime.now(UTC), self.us.recorder.clock.next_id()
        one = StandIn(
            failover=failover,
            source_region="eu",
            target_region="us",
            phase=Phase.SWITCHING,
            begun_at=now,
            since=now,
        )
        content = await self.us.here(self.us.maker(one))
        completed = FailoverCompleted(
            fleet="agents",
            source_region="eu",
            target_region="us",
            active_regions=("us", "ap"),
            reason="eu is lost",
            is_degraded_mode=True,
            compliance_preserved=True,
            failover=failover,
            receipt=content,
        )
        await self.us.here(self.us.recorder.with_control(partial(_append, completed)))
        await self.us.here(self.us.receipts.read())
        receipt = await self.us.here(opened(self.us.recorder, self.us.receipts.all[failover]))
        assert receipt.to_bytes() == Receipt.of(receipt.to_bytes()).to_bytes()
        return one, receipt

    async def closing(self, one: StandIn) -> Closing:
        async def closed() -> Closing | None:
            await self.us.here(self.us.receipts.read())
            found: Closing | None = await self.us.here(closing_of(self.us.recorder, self.us.receipts.all[one.failover]))
            return found

        found: Closing = await stack.until(closed, "the receipt is closed")
        return found


async def _append(event: FailoverCompleted, control: ControlLog) -> None:
    tail = await control.tail(FleetDeclared, tenant=PLATFORM, entity="agents")
    await control.append(event, after=tail, tenant=PLATFORM, policy_version="test")


async def _killed(process: Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    async with AsyncExitStack() as opened:
        nats = await opened.enter_async_context(stack.nats_server(sync_always=False))
        client = await opened.enter_async_context(stack.connected(nats))
        regions = []
        for name in ("us", "ap"):
            recorder = await opened.enter_async_context(Recorder(stack.options(nats, region=name, tenant="-")))
            regions.append(Region(recorder))
            opened.callback(recorder.in_loop(regions[-1].heard.run()).cancel)
        await stack.until(lambda: all(region.heard.listening for region in regions), "heartbeats are heard")
        yield Scene(nats, client, *regions, opened)


@pytest_asyncio.fixture
async def here() -> AsyncIterator[Scene]:
    async with scene() as made:
        yield made


async def announced(here: Scene, publisher: Publisher) -> None:
    """Both regions heard of all that it has recorded."""
    highest = max(pseq for pseq, _ in publisher.acked + publisher.unacked)

    def heard() -> bool:
        found = [region.announced.last(publisher.name) for region in (here.us, here.ap)]
        return all(
            known is not None and known.said.spooled >= highest and len(known.said.ids) == len(publisher.unacked)
            for known in found
        )

    await stack.until(heard, f"{publisher.name} is heard")


async def killed_in_the_middle(here: Scene, *spools: Path | None) -> list[Publisher]:
    """Publishers, each with five events acknowledged and four that are not."""
    publishers = [await here.publisher(folder) for folder in spools]
    for publisher in publishers:
        publisher.acked = await publisher.record(5)
        await publisher.tell("drained")
    await here.full(True)
    for publisher in publishers:
        publisher.unacked = await publisher.record(4)
        await announced(here, publisher)
    for publisher in publishers:
        await publisher.kill()
    await here.full(False)
    return publishers


def of(receipt: Receipt, publisher: Publisher) -> PublisherReceipt:
    return next(part for part in receipt.publishers if part.publisher == publisher.name)


def ended(closing: Closing, publisher: Publisher) -> PublisherClosing:
    return next(part for part in closing.publishers if part.publisher == publisher.name)


def runs(ids: Named) -> list[tuple[int, int]]:
    return list(Numbers((pseq, pseq) for pseq, _ in ids))


async def test_receipts_equal_the_ground_truth_id_by_id_and_close_when_the_region_returns(
    here: Scene, tmp_path: Path
) -> None:
    home, wiped = tmp_path / "home", tmp_path / "wiped"
    in_order = await here.publisher(tmp_path / "in-order")
    in_order.acked = await in_order.record(3)
    await in_order.end()
    back, adopted, lost, in_memory = await killed_in_the_middle(here, home, home, wiped, None)

    one, receipt = await here.failed_over()

    assert receipt.complete
    for publisher in (back, adopted, lost, in_memory):
        part = of(receipt, publisher)
        assert list(part.confirmed) == [(1, 6)], "recorder.opened, and five events"
        assert part.last_id == publisher.acked[-1][1]
        assert part.open_from == publisher.unacked[-1][0] + 1
    for publisher in (back, adopted, lost):
        part = of(receipt, publisher)
        assert (list(part.absent), list(part.absent_ids)) == (runs(publisher.unacked), publisher.unacked)
        assert (part.in_doubt, part.durable) == ((), True)
    part = of(receipt, in_memory)
    assert (part.absent, list(part.in_doubt_ids), part.durable) == ((), in_memory.unacked, False)
    assert of(receipt, in_order).is_settled
    assert {part.publisher for part in receipt.open} == {each.name for each in (back, adopted, lost, in_memory)}

    closers = [region.recorder.in_loop(region.closer.run()) for region in (here.us, here.ap)]
    following = [region.recorder.in_loop(region.receipts.run()) for region in (here.us, here.ap)]
    await stack.until(lambda: "is open" in (here.us.closer.failure or ""), "health warns")
    shutil.rmtree(wiped)
    wiped.mkdir()
    await here.publisher(home)
    await here.publisher(wiped)
    closing = await here.closing(one)
    await stack.until(lambda: (here.us.closer.failure, here.ap.closer.failure) == (None, None), "health warns no more")
    for running in (*closers, *following):
        running.cancel()

    for publisher in (back, adopted):
        found = ended(closing, publisher)
        assert list(found.recovered_ids)[: len(publisher.unacked)] == publisher.unacked
        assert (found.lost, found.lost_ids, found.in_doubt, found.open_from) == ((), (), (), None)
    for publisher in (lost, in_memory):
        found = ended(closing, publisher)
        assert (list(found.lost), list(found.lost_ids)) == (runs(publisher.unacked), publisher.unacked)
        assert (found.recovered, found.open_from) == ((), publisher.unacked[-1][0] + 1)
    closed = [message for message in await stack.on_stream(here.client) if message.subject.startswith("ctl.receipt.")]
    assert len(closed) == 1, "both regions looked, one closed it"
    assert (closing.how, closing.lost_events) == ("returned", len(lost.unacked) + len(in_memory.unacked))


async def test_a_region_that_is_declared_gone_has_lost_what_is_absent_and_the_rest_stays_in_doubt(
    here: Scene, tmp_path: Path
) -> None:
    durable, in_memory = await killed_in_the_middle(here, tmp_path / "home", None)
    one, receipt = await here.failed_over()
    assert not await here.us.here(_looked(here.us))

    fleet = FleetReceipts(here.ap.recorder, here.ap.receipts)
    await fleet.read()
    assert [each.failover for each in fleet.open] == [one.failover]
    [closing] = await fleet.gone("eu", declared_by="kim", reason="it burnt down")

    assert list(ended(closing, durable).lost_ids) == durable.unacked
    assert list(ended(closing, in_memory).in_doubt_ids) == in_memory.unacked
    assert (closing.lost_events, closing.in_doubt_events, closing.recovered_events) == (4, 4, 0)
    await fleet.read()
    assert fleet.open == ()
    assert await fleet.gone("eu", declared_by="kim", reason="again") == []
    shown = await fleet.show(one.failover)
    assert (shown.receipt, shown.closing) == (receipt, closing)
    text = "\n".join(lines(shown.receipt, shown.closing))
    assert "eu was declared gone by kim: it burnt down" in text
    assert all(id in text for _, id in (*durable.unacked, *in_memory.unacked))


async def _looked(region: Region) -> bool:
    """Whether anything is closed by a look."""
    await region.receipts.read()
    await region.closer._look()
    return not region.closer.open or not next(iter(region.closer.open.values())).left
