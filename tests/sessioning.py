"""Tasks in the hands of owners without workers, and snapshots of theirs, as tests of sessions need them."""

import asyncio
import hashlib
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import orjson
from nats.aio.client import Client
from pydantic import BaseModel

from relight.engine.log.buckets import SHARED, Bucket
from relight.engine.log.content import ContentReader
from relight.engine.log.control import Tail
from relight.engine.policies.reassignment import Claimant, submitted
from relight.engine.recorder.recorder import Recorder
from relight.engine.tasks.rulings import Owned, TaskLog, state_of
from relight.engine.tasks.sessions.envelope import canonical
from relight.engine.tasks.sessions.session import Session
from relight.engine.tasks.task import Task
from relight.events.tasks import ReleaseCause
from relight.events.values import Content

T = TypeVar("T")
TENANT = "acme"
PLAN = tuple(f"step-{n:02}" for n in range(1, 21))


class Refunds(BaseModel):
    done: list[str] = []
    total: float = 0.0
    notes: dict[str, str] = {}


def went_on(state: Refunds, step: str) -> Refunds:
    """The state after that step."""
    notes = state.notes | {f"ü-{step}": "€" * len(step)}
    return Refunds(done=[*state.done, step], total=state.total + 0.1, notes=notes)


def bytes_of(state: BaseModel) -> bytes:
    return canonical(state.model_dump(mode="json"))


async def in_loop(recorder: Recorder, coroutine: Coroutine[Any, Any, T]) -> T:
    return await asyncio.wrap_future(recorder.in_loop(coroutine))


async def claimed(recorder: Recorder, task: str, owner: str = "w-1") -> Task:
    """The task in the hands of a new owner; submitted where it was not."""
    log = TaskLog(recorder)
    now = recorder.clock.now()
    await in_loop(recorder, log.submit(TENANT, submitted(task, "refunds", now=now, max_attempts=50)))
    owned = await in_loop(recorder, log.claim(TENANT, task, Claimant(owner, recorder.options.region)))
    assert owned is not None, "somebody has it"
    return Task(recorder, log, owned, None)


async def lost(recorder: Recorder, task: str) -> None:
    """Its owner is, and it waits for another one."""
    log = TaskLog(recorder)
    tail = await in_loop(recorder, log.tail(TENANT, task))
    state = state_of(tail)
    assert state is not None
    assert state.epoch is not None
    owned = Owned(tenant=TENANT, task=task, tail=tail, state=state, epoch=state.epoch)
    await in_loop(recorder, log.release(owned, ReleaseCause.OWNER_LOST, "silent"))


async def tail_of(recorder: Recorder, task: str) -> Tail:
    return await in_loop(recorder, TaskLog(recorder).tail(TENANT, task))


async def worked(session: Session[Refunds], *, until_step: int, plan: Sequence[str] = PLAN) -> list[str]:
    """Goes on to that step; gives the steps that it was given."""
    given: list[str] = []
    async for step in session.remaining(plan):
        given.append(step)
        await session.checkpoint(went_on(session.state, step))
        if session.step == until_step:
            break
    return given


async def altered(client: Client, content: Content, bucket: Bucket = SHARED, *, make: bytes | None = None) -> bytes:
    """Puts other bytes in place of a content's, as an intruder would: its name and size stay. Gives what was there."""
    js = client.jetstream(timeout=5)
    reader = ContentReader(js, bucket)
    held = await reader.look_up(TENANT, content.sha256)
    assert held is not None
    subject = bucket.chunks + held.nuid
    chunks = [chunk async for chunk in reader.messages(subject)]
    body = b"".join(chunk.data or b"" for chunk in chunks)
    assert hashlib.sha256(body).hexdigest() == content.sha256
    for chunk in chunks:
        await js.delete_msg(bucket.stream, chunk.seq or 0)
    await js.publish(subject, make or body.replace(b"step-01", b"step-99"))
    return body


async def envelope_of(client: Client, content: Content) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(await ContentReader(client.jetstream(timeout=5)).read(TENANT, content.sha256))
    return found
