"""A stream of several publishers and control subjects that is harmed and has to be whole again."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import stack
from nats.aio.client import Client
from stack import Projecting, until

from relight.engine.archive.folder import FolderStore
from relight.engine.archive.keys import kept_key
from relight.engine.archive.sealing import add_segment, found_archive
from relight.engine.archive.segment import Head, seal
from relight.engine.audit.auditing import audit
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.healing.healer import Healer, Round
from relight.engine.healing.missing import standing
from relight.engine.healing.watching import Healing, healer, watch
from relight.engine.log.control import ControlLog, Tail
from relight.engine.log.links import link_of
from relight.engine.log.numbers import Numbers
from relight.engine.log.reader import BEGINNING, Message, Reader
from relight.engine.log.topology import Headers, connect
from relight.engine.recorder.recorder import Recorder
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.digest import digest_memory, digest_postgres
from relight.events.base import Event
from relight.events.breakers import BreakerClosed, BreakerOpened
from relight.events.decisions import DecisionBegun, DecisionCheckpointed

RETRY_AT = datetime(2030, 1, 1, tzinfo=UTC)
Links = dict[int, tuple[str, int]]
"""Publisher and number by stream sequence."""


def ruled(n: int, service: str) -> BreakerOpened | BreakerClosed:
    if n % 2:
        return BreakerOpened(service_name=service, reason=f"{n}", failure_count=n, next_retry_at=RETRY_AT)
    return BreakerClosed(service_name=service, reason=f"{n}")


async def rule(recorder: Recorder, service: str, times: int) -> Tail:
    """So many revisions more."""

    async def append(log: ControlLog) -> Tail:
        tail = await log.tail(BreakerOpened, tenant="acme", entity=service)
        for _ in range(times):
            tail = await log.append(ruled(tail.rev + 1, service), after=tail, tenant="acme", policy_version="1")
        return tail

    return await asyncio.wrap_future(recorder.in_loop(recorder.with_control(append)))


def record_some(recorder: Recorder, numbers: Iterable[int]) -> None:
    """Observations; every tenth with content."""
    for n in numbers:
        if n % 10 == 0:
            content = recorder.content(b"what the agent saw, number %d" % n)
            recorder.record(DecisionCheckpointed(decision=f"d{n // 50}", checkpoint_type="seen", content=content))
        elif n % 10 == 1:
            recorder.record(DecisionBegun(decision=f"d{n // 50}", decision_type="refund", context={"n": n}))
        else:
            recorder.record(stack.failed(n, f"service {n % 7}"))


@dataclass
class Scene:
    """`recorders` are live; one more has ended, with all it recorded acknowledged."""

    nats: EmbeddedNats
    spools: Path
    database: str
    recorders: list[Recorder]
    said: list[Event] = field(default_factory=list)

    async def drained(self) -> None:
        for recorder in self.recorders:
            await stack.drained(recorder)

    async def restart(self) -> None:
        await self.nats.start()
        for recorder in self.recorders:
            await until(lambda recorder=recorder: recorder.health().failure is None, "the recorder is connected again")

    async def close_recorders(self) -> None:
        for recorder in self.recorders:
            await asyncio.to_thread(recorder.stop)
        self.recorders.clear()


@asynccontextmanager
async def scene(database: str, *, events: int = 60, sync_always: bool = False) -> AsyncIterator[Scene]:
    """Three publishers, and three subjects that two of them rule on by turns."""
    async with AsyncExitStack() as held:
        nats = await held.enter_async_context(stack.nats_server(sync_always=sync_always))
        spools = held.enter_context(stack.folder()) / "spool"
        recorders = [Recorder(stack.options(nats, spools)) for _ in range(3)]
        for recorder in recorders:
            await asyncio.to_thread(recorder.start)
        here = Scene(nats, spools, database, recorders)
        held.push_async_callback(here.close_recorders)
        for turn in range(3):
            for number, recorder in enumerate(recorders):
                first = 1_000 * number + turn * events // 3
                record_some(recorder, range(first, first + events // 3))
                await stack.drained(recorder)
                if number < 2:
                    for service in ("api", "db", "search"):
                        await rule(recorder, service, 1 + (turn + number) % 2)
        ended = recorders.pop()
        await asyncio.to_thread(ended.stop)
        yield here


async def read_links(client: Client) -> tuple[Links, list[Message]]:
    """Everything that can be read now."""
    await until(lambda: client.is_connected, "the test's own client is connected again")
    messages: list[Message] = []
    async with Reader(client, BEGINNING) as reader:
        async for batch in reader.through((await reader.state()).last_seq, limit=10_000):
            messages += batch
    links: Links = {}
    for message in messages:
        link = link_of(message)
        assert link is not None
        links[message.seq] = (link.publisher, link.pseq)
    return links, messages


async def seal_all(messages: list[Message], folder: Path) -> FolderStore:
    """An archive of them, in three segments."""
    store, key = FolderStore(folder / "archive"), kept_key(folder / "key.pem")
    head = Head(archive=(await found_archive(store, key, now=stack.NOW)).root.archive)
    third = len(messages) // 3 + 1
    for first in range(0, len(messages), third):
        part = messages[first : first + third]
        head = await add_segment(store, seal(part, head, incarnation=1, key=key, sealed_at=stack.NOW))
    return store


def numbers_of(links: Links, seqs: Iterable[int]) -> dict[str, Numbers]:
    """By publisher, of those that stand nowhere else."""
    gone = set(seqs)
    kept = {link for seq, link in links.items() if seq not in gone}
    found: dict[str, list[tuple[int, int]]] = {}
    for seq in gone:
        if seq in links and links[seq] not in kept:
            publisher, pseq = links[seq]
            found.setdefault(publisher, []).append((pseq, pseq))
    return {publisher: Numbers(runs) for publisher, runs in found.items()}


def healing_on(here: Scene, store: FolderStore | None = None, *, lost_after: timedelta = timedelta()) -> Healing:
    """What it says is recorded by the first recorder, and kept in `said`."""

    async def say(events: Any) -> None:
        here.said += events
        if here.recorders:
            for event in events:
                here.recorders[0].record(event)

    return Healing(
        open_client=lambda: connect(here.nats.url, name="relight healing", headers=Headers.MESSAGE_ID),
        open_session=lambda: connect_session(here.database, role=stack.ROLE),
        say=say,
        store=store,
        lost_after=lost_after,
        look_every_s=0.1,
        first_pause_s=0.5,
    )


@asynccontextmanager
async def healing(here: Scene, store: FolderStore | None = None) -> AsyncIterator[Healer]:
    """A healer at hand."""
    async with healer(healing_on(here, store)) as (mender, _):
        yield mender


@asynccontextmanager
async def watching(here: Scene) -> AsyncIterator[None]:
    """A healer that watches by itself, as in the service."""
    task = asyncio.create_task(watch(healing_on(here, lost_after=timedelta(minutes=1))))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=stack.DEADLINE_S)


async def tables_of(client: Client) -> dict[str, str]:
    """Digests of what the stream says now, folded in memory."""
    return (await digest_memory(client)).tables


async def healed_until_whole(mender: Healer, *, rounds: int = 6) -> list[Round]:
    """Rounds until nothing is left."""
    done = []
    for _ in range(rounds):
        done.append(await mender.heal_all())
        if not done[-1].left:
            return done
    raise AssertionError(f"{done[-1].left} are left")


async def assert_whole(here: Scene, projected: Projecting, undisturbed: dict[str, str], links: Links) -> None:
    """Final loss 0: every number stands, and both stores hold the tables of an undisturbed run."""
    await here.drained()
    await projected.caught_up()
    client = await connect(here.nats.url, name="relight audit", headers=Headers.MESSAGE_ID)
    try:
        audited = await audit(client, projected.session, now=stack.NOW)
        assert audited.is_clean, audited.findings
    finally:
        await client.close()
    there = await standing(projected.client)
    assert all(pseq in there.numbers[publisher] for publisher, pseq in links.values())
    assert await projected.rows("SELECT * FROM publisher_gaps") == []
    assert (await digest_memory(projected.client)).tables == undisturbed
    assert (await digest_postgres(projected.session)).tables == undisturbed
    heads = await projected.rows("SELECT sum(broken_links)::bigint AS forks FROM publisher_heads")
    assert heads == [{"forks": 0}]
    await assert_tails(projected.client)


async def assert_tails(client: Client) -> None:
    """The last message of every control subject is its highest revision."""
    there = await standing(client)
    js = client.jetstream()
    for subject, numbers in there.numbers.items():
        if subject.startswith("ctl."):
            last = await js.get_last_msg("EV", subject)
            link = link_of(Message(last.seq or 0, 0, subject, last.data or b""))
            assert link is not None
            assert link.pseq == numbers.highest
