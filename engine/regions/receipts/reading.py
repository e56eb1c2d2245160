"""Reads off the stream itself which numbers of a region's publishers stand there."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from relight.engine.log.answers import answered
from relight.engine.log.links import document_of, link_of
from relight.engine.log.numbers import Numbers
from relight.engine.log.reader import TRANSIENT, Message, positions
from relight.engine.log.topology import REQUEST_TIMEOUT_S, STREAM
from relight.events.recorder import RecorderClosed, RecorderDrained, RecorderOpened
from relight.events.subjects import OBSERVATIONS, token

FETCHED = 1_000
FETCH_S = 5.0
AFTER_S = 0.2
"""After the last message that was there: so much a replica may be behind."""
LOSSES = f"{OBSERVATIONS}.*.recorder.*.lost"
ENDS = {RecorderClosed.TYPE, RecorderDrained.TYPE}


@dataclass(slots=True)
class Stood:
    """What stands of one publisher, as far as was read; `ended_at` and `opened_at` are the highest of their kind."""

    numbers: Numbers = field(default_factory=Numbers)
    ids: dict[int, str] = field(default_factory=dict)
    last: tuple[int, str, str] = (0, "", "")
    """Number, id and SHA-256 of the highest."""
    ended_at: int = 0
    opened_at: int = 0


@dataclass(slots=True)
class Standing:
    """By publisher. `complete`: nothing was left out between where it began and `through_seq`."""

    publishers: dict[str, Stood] = field(default_factory=lambda: defaultdict(Stood))
    lost: dict[str, Numbers] = field(default_factory=lambda: defaultdict(Numbers))
    """Which somebody declared lost."""
    through_seq: int = 0
    complete: bool = True

    def of(self, publisher: str) -> Stood:
        return self.publishers.get(publisher) or Stood()


async def read_region(
    client: Client, region: str, standing: Standing, *, since: datetime | None = None, within_s: float | None = None
) -> None:
    """Adds what came after `standing.through_seq`, or since then. Raises a `nats.errors.Error` or `TimeoutError`.

    After `within_s` it stops where it is, and is not complete.
    """
    js = client.jetstream(timeout=REQUEST_TIMEOUT_S)
    end = (await answered(client, js.stream_info(STREAM), within_s=REQUEST_TIMEOUT_S + 1)).state.last_seq
    after = standing.through_seq
    try:
        async with asyncio.timeout(within_s):
            while True:
                try:
                    async for message in _messages(client, f"{OBSERVATIONS}.{token(region)}.>", after, since):
                        _note(standing, message)
                        end = max(end, message.seq)
                    async for message in _messages(client, LOSSES, after, since):
                        _note_loss(standing, message)
                    break
                except TRANSIENT:  # a consumer's server was the lost one, or a leader is elected just now
                    if within_s is None:
                        raise
                    await asyncio.sleep(AFTER_S)
    except TimeoutError:
        if within_s is None:
            raise
        standing.complete = False
    standing.through_seq = max(after, end)


async def read_at(client: Client, seq: int) -> Message | None:
    """The message there; None where none stands any more."""
    js = client.jetstream(timeout=REQUEST_TIMEOUT_S)
    try:
        found = await answered(client, js.get_msg(STREAM, seq), within_s=REQUEST_TIMEOUT_S + 1)
    except NotFoundError:
        return None
    return Message(seq, 0, found.subject or "", found.data or b"")


def id_of(message: Message) -> str:
    return str(document_of(message).get("id", ""))


async def _messages(client: Client, subject: str, after: int, since: datetime | None) -> AsyncIterator[Message]:
    """Those that stand there now, and maybe some that came meanwhile."""
    js = client.jetstream(timeout=REQUEST_TIMEOUT_S)
    by_time = not after and since is not None
    config = ConsumerConfig(
        deliver_policy=DeliverPolicy.BY_START_TIME if by_time else DeliverPolicy.BY_START_SEQUENCE,
        opt_start_time=since if by_time else None,
        opt_start_seq=None if by_time else after + 1,
        filter_subject=subject,
        ack_policy=AckPolicy.NONE,
        mem_storage=True,
        num_replicas=1,
        inactive_threshold=30,
    )
    info = await answered(client, js.add_consumer(STREAM, config), within_s=REQUEST_TIMEOUT_S + 1)
    subscription = await js.pull_subscribe_bind(info.name, stream=STREAM)
    try:
        left = info.num_pending or 0
        while True:
            try:
                some = await subscription.fetch(FETCHED, timeout=FETCH_S if left else AFTER_S)
            except TimeoutError:
                if left:
                    raise
                return
            for message in some:
                seq, _, timestamp_ns, left = positions(message)
                yield Message(seq, timestamp_ns, message.subject, message.data)
    finally:
        with suppress(*TRANSIENT, NotFoundError):
            await subscription.unsubscribe()
            await js.delete_consumer(STREAM, info.name)


def _note(standing: Standing, message: Message) -> None:
    link = link_of(message)
    if link is None:
        return
    document = document_of(message)
    stood, id, type_ = standing.publishers[link.publisher], str(document.get("id", "")), document.get("type")
    stood.numbers.add(link.pseq)
    stood.ids[link.pseq] = id
    stood.last = max(stood.last, (link.pseq, id, link.sha256))
    if type_ in ENDS:
        stood.ended_at = max(stood.ended_at, link.pseq)
    elif type_ == RecorderOpened.TYPE:
        stood.opened_at = max(stood.opened_at, link.pseq)


def _note_loss(standing: Standing, message: Message) -> None:
    match document_of(message):
        case {"data": {"publisher": str(publisher), "first_pseq": int(first), "events": int(events)}}:
            standing.lost[publisher].add(first, first + events - 1)


def named(stood: Stood, numbers: Numbers, limit: int) -> Sequence[tuple[int, str]]:
    """Those of these numbers whose ids were read, the highest `limit`, in order."""
    found = sorted((pseq for pseq in stood.ids if pseq in numbers), reverse=True)[:limit]
    return [(pseq, stood.ids[pseq]) for pseq in reversed(found)]
