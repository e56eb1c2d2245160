"""Servers, projectors and recorders of one test, and waiting for what they come to, with a deadline."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from places import temporary

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.errors import Fenced as Fenced
from relight.engine.log.chain import body_sha256
from relight.engine.log.reader import BEGINNING, Message, Reader
from relight.engine.log.topology import connect, ensure_stream
from relight.engine.log.watermarks import QUESTION, announcement
from relight.engine.messaging.watermarks import WatermarkQuestion, answer_watermark
from relight.engine.recorder.recorder import Recorder, RecorderOptions
from relight.engine.tables.connecting import Session, connect_session
from relight.engine.tables.digest import Digest, digest_memory, digest_postgres
from relight.engine.tables.pools import PoolOptions, open_pool
from relight.engine.tables.projector import Projector
from relight.engine.tables.store import read_rows as read_rows
from relight.events.base import Event
from relight.events.breakers import BreakerFailed
from relight.events.envelope import GENESIS, Head, Ruling, encode
from relight.events.recorder import RecorderGap as RecorderGap
from relight.events.subjects import control_subject, observation_subject

DEADLINE_S = 20.0
NOW = datetime.now(UTC)
ROLE = "relight_projector"


async def until(condition: Callable[[], Any], what: str = "", *, within_s: float = DEADLINE_S) -> Any:
    """What the condition, which may be a coroutine's function, gives once that is true."""
    deadline = time.monotonic() + within_s
    while True:
        found = condition()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what or condition}"
        await asyncio.sleep(0.01)


@contextmanager
def folder() -> Iterator[Path]:
    """A short path, as servers like it."""
    path = Path(tempfile.mkdtemp(prefix="relight-t-", dir=temporary()))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@asynccontextmanager
async def nats_server(**options: Any) -> AsyncIterator[EmbeddedNats]:
    """One of the test's own, with its store in a folder that goes with it."""
    with folder() as home:
        async with EmbeddedNats(home, **options) as server:
            yield server


@asynccontextmanager
async def connected(nats: EmbeddedNats) -> AsyncIterator[Client]:
    """A client, and the stream declared."""
    client = await connect(nats.url, name="relight test")
    try:
        await ensure_stream(client.jetstream(timeout=10))
        yield client
    finally:
        await client.close()


def options(nats: EmbeddedNats, spools: Path | None = None, **changes: Any) -> RecorderOptions:
    given: dict[str, Any] = {
        "nats_url": nats.url,
        "nats_monitor_urls": (nats.monitor_url,),
        "region": "eu",
        "tenant": "acme",
        "spools": spools,
        "ack_timeout_s": DEADLINE_S,
    }
    return RecorderOptions(**given | changes)


def failed(n: int, service: str = "api") -> BreakerFailed:
    """An observation that says which one it is."""
    return BreakerFailed(service_name=service, error_class="Timeout", details={"n": n})


async def on_stream(client: Client) -> list[Message]:
    """Every message that stands on the stream now."""
    found: list[Message] = []
    await until(lambda: client.is_connected, "the test's own client is connected again")
    async with Reader(client, BEGINNING) as reader:
        end = (await reader.state()).last_seq
        async with asyncio.timeout(DEADLINE_S):
            while reader.position.seq < end:
                found += await reader.batch(limit=10_000, linger_s=0, timeout_s=1)
    return found


def bodies(messages: list[Message]) -> list[dict[str, Any]]:
    return [orjson.loads(message.body) for message in messages]


def numbers(messages: list[Message]) -> list[int]:
    """The `n` of every `failed(n)`, in the stream's order."""
    return [body["data"]["details"]["n"] for body in bodies(messages) if body["type"] == "breakers.failed"]


def assert_chained(messages: list[Message], publisher: str) -> list[dict[str, Any]]:
    """Numbers 1, 2, 3 … in this order, each with the hash of the one before; gives the documents."""
    prev, found = GENESIS, []
    for message in messages:
        body = orjson.loads(message.body)
        if body["publisher"] == publisher:
            assert (int(body["pseq"]), body["prev"]) == (len(found) + 1, prev)
            prev = body_sha256(message.body)
            found.append(body)
    return found


def encoded(
    data: Event,
    *,
    id: str,
    time: Any,
    pseq: int = 1,
    prev: str = GENESIS,
    publisher: str = "p-test",
    tenant: str = "acme",
    rev: int | None = None,
) -> tuple[str, bytes]:
    """Subject and bytes of an event as a publisher of another's would write it."""
    head = Head(id=id, type=data.TYPE, version=data.VERSION, entity=data.entity, time=time, tenant=tenant, region="eu")
    ruling, subject = None, observation_subject("eu", data.TYPE, tenant)
    if data.POLICY is not None:
        publisher = subject = control_subject(data.POLICY, tenant, data.entity)
        pseq = rev = rev or pseq
        ruling = Ruling(rev=rev, policy=data.POLICY, policyversion="1", decidedat=time, observedseq=0)
    body = encode(
        head,
        data.model_dump_json(exclude_none=True).encode(),
        source=f"relight://eu/{publisher}",
        publisher=publisher,
        pseq=pseq,
        prev=prev,
        ruling=ruling,
    )
    return subject, body


@dataclass
class Projecting:
    """A projector at work on a test's servers, and a session that acts as it does."""

    projector: Projector
    task: asyncio.Task[None]
    session: Session
    client: Client

    async def caught_up(self, *, within_s: float = DEADLINE_S) -> None:
        async def all_folded() -> bool:
            if not self.client.is_connected:
                return False
            last_seq = (await self.client.jetstream().stream_info("EV")).state.last_seq
            return self.projector.position is not None and self.projector.position.seq >= last_seq

        await until(all_folded, "the projector catches up", within_s=within_s)

    async def rows(self, sql: str, *arguments: Any) -> list[dict[str, Any]]:
        return [dict(row) for row in await self.session.fetch(sql, *arguments)]

    async def digests_agree(self) -> Digest:
        """PostgreSQL's and memory's, of what stands on the stream now."""
        await self.caught_up()
        memory, postgres = await digest_memory(self.client), await digest_postgres(self.session)
        assert postgres.tables == memory.tables
        assert postgres.rows == memory.rows
        return postgres


@asynccontextmanager
async def service_answers(nats: EmbeddedNats, database: str) -> AsyncIterator[Projecting]:
    """Projects until the `with` ends, and answers recorders with the service's own answers."""
    async with (
        projecting(nats, database, answers=False) as projected,
        await open_pool(database, PoolOptions(size=2)) as pool,
    ):

        async def answer(message: Msg) -> None:
            question = WatermarkQuestion.model_validate_json(message.data)
            projected.projector.watch(question.publisher)
            await message.respond(await answer_watermark(pool, question))

        await projected.client.subscribe(QUESTION, cb=answer)
        yield projected


@asynccontextmanager
async def projecting(
    nats: EmbeddedNats, database: str, *, batch_events: int = 10_000, answers: bool = True
) -> AsyncIterator[Projecting]:
    """Projects until the `with` ends, and answers recorders as the service did a release before."""
    async with connected(nats) as client:
        projector = Projector(client, lambda: connect_session(database, role=ROLE), batch_events=batch_events)
        answering = await asyncpg.create_pool(database, min_size=1, max_size=2, server_settings={"role": ROLE})

        async def answer(message: Msg) -> None:
            question = orjson.loads(message.data)
            publisher, pseq = question["publisher"], question["pseq"]
            projector.watch(publisher)
            projected = await answering.fetchval(
                "SELECT contiguous_pseq FROM publisher_heads WHERE publisher = $1", publisher
            )
            dead = await answering.fetch(
                "SELECT pseq, reason FROM dead_letters WHERE publisher = $1 AND pseq = $2 AND resolved_at IS NULL",
                publisher,
                pseq,
            )
            await message.respond(announcement(projected or 0, {row["pseq"]: row["reason"] for row in dead}))

        if answers:
            await client.subscribe(QUESTION, cb=answer)
        task = asyncio.create_task(projector.run())
        session = await connect_session(database, role=ROLE)
        try:
            yield Projecting(projector, task, session, client)
        finally:
            task.cancel()
            await asyncio.wait([task], timeout=DEADLINE_S)
            assert task.done(), "the projector does not end when it is cancelled"
            await session.close(timeout=2)
            answering.terminate()


async def drained(recorder: Recorder) -> None:
    await until(lambda: recorder.health().exposed_events == 0, "the spool is drained")


async def holds_of(client: Client, publisher: str, events: int) -> bool:
    """Whether the stream holds just so many events of this publisher."""
    return sum(body["publisher"] == publisher for body in bodies(await on_stream(client))) == events
