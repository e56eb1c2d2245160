"""Publishes again what the stream has lost: the same bytes on the same subject, under fresh message ids."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from relight.engine.errors import RecorderError
from relight.engine.log.answers import answered
from relight.engine.log.chain import body_sha256
from relight.engine.log.links import Link, document_of, link_of
from relight.engine.log.publishing import (
    HEADERS,
    MAX_BATCH_BYTES,
    MAX_BATCH_EVENTS,
    MAX_HEALS,
    WRONG_LAST_SEQUENCE,
    StreamRefused,
    publish_batch,
    request,
)
from relight.engine.log.reader import Message
from relight.engine.log.standing import stands
from relight.engine.log.topology import REQUEST_TIMEOUT_S, STREAM
from relight.engine.spool.held import PutBack
from relight.engine.spool.spool import ControlCopy, Spooled

LOOKS_AT_ONCE = 100
DUPLICATE_IN_BATCH = 10201
BATCH_ATTEMPTS = 3
MAX_RULINGS_AT_ONCE = 500
MAX_TRIES = 100
"""Of writers that append at the same time one wins each time: so often another may."""


async def lacking(client: Client, js: JetStreamContext, held: Sequence[tuple[int | None, Spooled]]) -> list[Spooled]:
    """Of events those that do not stand where they were put last (None: nobody knows where that was)."""

    async def stands_there(seq: int | None, event: Spooled) -> bool:
        if seq is None or seq < 1:
            return False
        asking = stands(js, seq, event)
        return await answered(client, asking, within_s=REQUEST_TIMEOUT_S + 1)

    found: list[Spooled] = []
    for first in range(0, len(held), LOOKS_AT_ONCE):
        part = held[first : first + LOOKS_AT_ONCE]
        there = await asyncio.gather(*(stands_there(seq, event) for seq, event in part))
        found += [event for (_, event), is_there in zip(part, there, strict=True) if not is_there]
    return found


async def put_back(
    client: Client, js: JetStreamContext, events: Sequence[Spooled], *, now_ms: int
) -> AsyncIterator[PutBack]:
    """Observations, ascending: each is told of once it stands. Raises what publishing raises."""
    for batch in _batches(events):
        if len(batch) > 1 and (taken := await _put_back_batch(client, batch)) is not None:
            last_seq, attempt = taken
            for first, last in _runs(batch):
                stands_at = last_seq - (len(batch) - 1 - last)  # a batch is stored in one piece
                yield PutBack(batch[first].pseq, batch[last].pseq, stands_at, attempt, now_ms)
            continue
        for event in batch:
            seq, attempt = await _put_back_one(client, js, event)
            yield PutBack(event.pseq, event.pseq, seq, attempt, now_ms)


async def _put_back_batch(client: Client, batch: Sequence[Spooled]) -> tuple[int, int] | None:
    """Where the last of it stands, and the attempt; None where it has to be done singly."""
    for attempt in range(1, BATCH_ATTEMPTS + 1):
        try:
            fresh = [event._replace(id=f"{event.id}#h{attempt}") for event in batch]
            return await publish_batch(client, fresh), attempt
        except StreamRefused as error:
            if error.code != DUPLICATE_IN_BATCH:  # else some of it was put back within the last two minutes
                return None
    return None


async def _put_back_one(client: Client, js: JetStreamContext, event: Spooled) -> tuple[int, int]:
    for attempt in range(1, MAX_HEALS):
        headers = {**HEADERS, "Nats-Msg-Id": f"{event.id}#h{attempt}"}
        seq, duplicate = await request(client, event.subject, event.body, headers)
        if not duplicate or not await lacking(client, js, [(seq, event)]):
            return seq, attempt
    raise RecorderError(
        f"event {event.id}: the stream calls it a duplicate {MAX_HEALS} times and holds it nowhere; look at its store"
    )


def _batches(events: Sequence[Spooled]) -> Iterator[list[Spooled]]:
    """As many as fit."""
    batch, size = list[Spooled](), 0
    for event in events:
        if batch and (len(batch) == MAX_BATCH_EVENTS or size + len(event.body) > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(event)
        size += len(event.body)
    if batch:
        yield batch


def _runs(batch: Sequence[Spooled]) -> Iterator[tuple[int, int]]:
    """First and last index of consecutive numbers."""
    first = 0
    for at in range(1, len(batch) + 1):
        if at == len(batch) or batch[at].pseq != batch[at - 1].pseq + 1:
            yield first, at - 1
            first = at


@dataclass(frozen=True, slots=True)
class Tail:
    """Where the server sees the last message of a control subject (0: it sees none), and the newest that one can read.

    A last message that cannot be read makes the server take the subject for empty, whatever stands before it.
    """

    seq: int = 0
    body: bytes = b""
    link: Link | None = None


async def put_back_rulings(
    client: Client, js: JetStreamContext, lost: Sequence[ControlCopy], *, newest: int, patient: bool
) -> list[ControlCopy]:
    """Of one subject, ascending: those that were put back, with the `seq` at which they stand now.

    No old revision becomes the last message of its subject. What lies below the last one is published together with
    it, in one atomic batch that a ruling appended meanwhile refuses, and that is then tried again. What comes after
    it is published if nothing stands after it: `patient` waits for the revision between, and, where the tail is gone
    altogether, for `newest`. Where another ruling took a lost one's place, that one stays the last.
    """
    moved: list[ControlCopy] = []
    for last in range(len(lost), 0, -MAX_RULINGS_AT_ONCE):  # the newest first: the others go below them
        part = lost[max(0, last - MAX_RULINGS_AT_ONCE) : last]
        moved = await _put_back_part(client, js, part, newest=newest, patient=patient) + moved
    return moved


async def _put_back_part(
    client: Client, js: JetStreamContext, lost: Sequence[ControlCopy], *, newest: int, patient: bool
) -> list[ControlCopy]:
    attempt = 1
    for _ in range(MAX_TRIES):
        tail = await tail_of(client, js, lost[0].subject)
        placed = {tail.body: tail.seq} if tail.seq else {}
        if batch := _arranged(lost, tail, newest=newest, patient=patient):
            fresh = [event._replace(id=f"{event.id}#h{attempt}") for event in batch]
            try:
                seq = await publish_batch(client, fresh, after_seq=tail.seq)
            except StreamRefused as error:
                if error.code == DUPLICATE_IN_BATCH:
                    attempt += 1
                elif error.code not in WRONG_LAST_SEQUENCE:
                    raise
                continue
            placed |= {event.body: seq - (len(batch) - 1 - i) for i, event in enumerate(batch)}
        moved = [copy._replace(seq=placed[copy.body]) for copy in lost if copy.body in placed]
        still_lost = await lacking(client, js, [(copy.seq, spooled(copy)) for copy in moved])
        return [copy for copy in moved if copy.body not in {event.body for event in still_lost}]
    raise RecorderError(f"{lost[0].subject}: {MAX_TRIES} rulings came first while lost ones were put back; try again")


async def tail_of(client: Client, js: JetStreamContext, subject: str) -> Tail:
    try:
        found = await answered(client, js.get_last_msg(STREAM, subject), within_s=REQUEST_TIMEOUT_S + 1)
    except NotFoundError:
        return await _readable_tail(client, js, subject)
    return Tail(found.seq or 0, found.data or b"", _link(subject, found.data or b""))


async def _readable_tail(client: Client, js: JetStreamContext, subject: str) -> Tail:
    newest, seq = Tail(), 0
    while True:
        asking = js.get_msg(STREAM, seq + 1, subject=subject, next=True)
        try:
            found = await answered(client, asking, within_s=REQUEST_TIMEOUT_S + 1)
        except NotFoundError:
            return newest
        seq, body = found.seq or 0, found.data or b""
        link = _link(subject, body)
        if link is not None and (newest.link is None or link.pseq >= newest.link.pseq):
            newest = Tail(0, body, link)


def _arranged(lost: Sequence[ControlCopy], tail: Tail, *, newest: int, patient: bool) -> list[Spooled]:
    """What is published, in this order, so that the right one is the last; empty: nothing, or not now."""
    batch = [spooled(copy) for copy in lost if copy.body != tail.body]
    last = tail.link
    above = [event for event in batch if last is not None and event.pseq > last.pseq]
    if not batch:
        return []
    if tail.seq == 0 and patient and batch[-1].pseq < max(newest, 0 if last is None else last.pseq + 1):
        return []
    if tail.seq == 0 and (last is None or above):
        return batch
    if not above or last is None or _replaced(above[0], last):
        return [*batch, _copy_of(tail, lost[0].subject)]
    if above[0].pseq > last.pseq + 1 and patient:
        below = batch[: -len(above)]
        return [*below, _copy_of(tail, lost[0].subject)] if below else []
    return batch


def _replaced(event: Spooled, last: Link) -> bool:
    """Whether `last` stands where another revision stood before that event."""
    if event.pseq != last.pseq + 1:
        return False
    link = _link(event.subject, event.body)
    return link is not None and link.prev != last.sha256


def _copy_of(tail: Tail, subject: str) -> Spooled:
    id = None if tail.link is None else document_of(tail.link.message).get("id")
    pseq = 0 if tail.link is None else tail.link.pseq
    return Spooled(pseq, str(id or body_sha256(tail.body)), subject, tail.body, "", 0)


def spooled(copy: ControlCopy) -> Spooled:
    return Spooled(copy.rev, copy.id, copy.subject, copy.body, "", 0)


def _link(subject: str, body: bytes) -> Link | None:
    return link_of(Message(0, 0, subject, body))
