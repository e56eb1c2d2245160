"""A stream as two recorders and some rulings leave it, and ways to harm it by hand."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from stack import drained, failed, options

from relight.engine.audit.auditing import audit
from relight.engine.audit.report import Audit
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.log.control import ControlLog, Tail
from relight.engine.log.links import link_of
from relight.engine.log.reader import BEGINNING, Message, Reader
from relight.engine.log.topology import MESSAGE_ID, STREAM, Headers, connect, ensure_stream
from relight.engine.recorder.recorder import Recorder
from relight.engine.tables.connecting import Connection
from relight.events.breakers import BreakerClosed, BreakerSucceeded
from relight.events.decisions import DecisionBegun


async def rule(recorder: Recorder, service: str, times: int) -> None:
    """So many revisions more."""

    async def append(log: ControlLog) -> Tail:
        tail = await log.tail(BreakerClosed, tenant="acme", entity=service)
        for _ in range(times):
            event = BreakerClosed(service_name=service, reason=f"after {tail.rev}")
            tail = await log.append(event, after=tail, tenant="acme", policy_version="1")
        return tail

    await asyncio.wrap_future(recorder.in_loop(recorder.with_control(append)))


def record_some(recorder: Recorder, events: int) -> None:
    for n in range(events):
        match n % 4:
            case 0:
                recorder.record(DecisionBegun(decision=f"d{n}", decision_type="refund", context={"n": n}))
            case 1:
                recorder.record(BreakerSucceeded(service_name="api-ü", latency_ms=n))
            case _:
                recorder.record(failed(n, f"service {n % 3}"))


async def record_all(nats: EmbeddedNats, spools: Path, *, events: int = 30, rulings: int = 6) -> None:
    """By two recorders in turns, with rulings in between; both end in order."""
    async with (
        Recorder(options(nats, spools)) as one,
        Recorder(options(nats, spools, region="us", tenant="ex.am ple")) as other,
    ):
        for part in range(3):
            record_some(one, events // 3)
            record_some(other, events // 6)
            await drained(one)
            await rule(other, "api", rulings // 3)
            if part:
                await rule(one, "p.q ü", rulings // 3)
            await drained(other)


@asynccontextmanager
async def reading(nats: EmbeddedNats) -> AsyncIterator[Client]:
    """A client as the command has it, with the stream."""
    client = await connect(nats.url, name="relight audit", headers=Headers.MESSAGE_ID)
    try:
        await ensure_stream(client.jetstream(timeout=10))
        yield client
    finally:
        await client.close()


async def audited(nats: EmbeddedNats, session: Connection, **changes: Any) -> Audit:
    async with reading(nats) as client:
        return await audit(client, session, now=datetime.now(UTC), **changes)


async def messages_of(nats: EmbeddedNats) -> list[Message]:
    """All of them, with their ids."""
    async with reading(nats) as client, Reader(client, BEGINNING) as reader:
        end = (await reader.state()).last_seq
        return [message async for batch in reader.through(end, limit=1_000) for message in batch]


async def put_again(nats: EmbeddedNats, messages: Iterable[Message]) -> None:
    """The stream anew with exactly these, in this order."""
    async with reading(nats) as client:
        js = client.jetstream(timeout=10)
        await js.delete_stream(STREAM)
        await ensure_stream(js)
        for message in messages:
            headers = {MESSAGE_ID: message.message_id} if message.message_id else None
            await js.publish(message.subject, message.body, headers=headers)


def named(message: Message) -> tuple[str, int]:
    """Publisher and number."""
    link = link_of(message)
    assert link is not None
    return link.publisher, link.pseq


def at_numbers(messages: Iterable[Message], publisher: str, *numbers: int) -> list[int]:
    """Where these events of a publisher stand."""
    found = {named(message): message.seq for message in messages}
    return [found[publisher, number] for number in numbers]
