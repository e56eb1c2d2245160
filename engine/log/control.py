"""Appends rulings: compare-and-set on one literal subject each, so that of racing writers exactly one wins."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from relight.engine import scope
from relight.engine.clock import Clock
from relight.engine.errors import AckTimeout, ControlError, RelightError, Superseded, Unreachable
from relight.engine.log.answers import answered
from relight.engine.log.chain import body_sha256
from relight.engine.log.links import link_of
from relight.engine.log.publishing import HEADERS, MAX_HEALS, WRONG_LAST_SEQUENCE, StreamRefused, request
from relight.engine.log.reader import Message
from relight.engine.log.topology import EXPECTED_LAST, MAX_EVENT_BYTES, REQUEST_TIMEOUT_S, STREAM
from relight.engine.spool.spool import ControlCopy
from relight.events.base import Control, Event
from relight.events.catalog import decode
from relight.events.envelope import GENESIS, Head, Recorded, Ruling, data_json, encode
from relight.events.errors import InvalidEvent, Undecodable
from relight.events.subjects import control_subject, source_of

RETRY_S = 0.1
TRANSIENT = (NatsError, TimeoutError, OSError, StreamRefused)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """The last control event folded into somebody's state; `seq` 0, `rev` 0: there is none yet."""

    subject: str
    seq: int = 0
    rev: int = 0
    sha256: str = GENESIS
    event: Recorded[Event] | None = None


class ControlLog:
    """Of one process: reads tails and appends to them, in its client's loop.

    `on_append` gets a copy of what was appended, for the spool.
    """

    def __init__(
        self, client: Client, *, region: str, publisher: str, clock: Clock, on_append: Callable[[ControlCopy], None]
    ) -> None:
        self._client = client
        self._js = client.jetstream(timeout=5)
        self._region = region
        self._source = source_of(region, publisher)
        self._clock = clock
        self._on_append = on_append

    async def tail(self, kind: type[Control], *, tenant: str, entity: str, timeout_s: float = 30) -> Tail:
        """The subject's last event: where to begin folding. `append` decides races, never this read.

        A last message that the server cannot read makes it say that there is none; its healing is waited for.
        Raises `Unreachable`; `ControlError` when what stands there is no ruling, or cannot be read.
        """
        assert kind.POLICY is not None
        subject = control_subject(kind.POLICY, tenant, entity)
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                if (last := await self._last(subject)) is not None:
                    break
                if not await self._counted(subject):
                    return Tail(subject=subject)
                failure: RelightError = ControlError(
                    f"the last message on {subject} cannot be read, though the stream counts some there: its store is"
                    " damaged; see `relight heal`, and try again"
                )
            except TRANSIENT as error:
                failure = Unreachable(f"the tail of {subject} cannot be read ({error!r}): is NATS up?")
                failure.__cause__ = error
            if time.monotonic() > deadline:
                raise failure
            await asyncio.sleep(RETRY_S)
        try:
            return _tail(last)
        except Undecodable as error:
            raise ControlError(
                f"message {last.seq}, the last on {subject}, is no ruling that we can read ({error}): upgrade, or"
                " look at its dead letter"
            ) from error

    async def append(
        self,
        event: Control,
        *,
        after: Tail,
        tenant: str,
        policy_version: str,
        observed_seq: int = 0,
        decided_at: datetime | None = None,
        timeout_s: float = 30,
        event_id: str | None = None,
        time: datetime | None = None,
    ) -> Tail:
        """Appends `event` if nothing came after `after`; returns the new tail.

        `observed_seq` is the highest stream sequence that the decision rests on. `event_id` and `time` are for sources
        with their own. Repeating after an unknown outcome is safe: whether we won is read off the chain, by the event
        that follows `after`.
        Raises `Superseded`, which names the winner; `AckTimeout` when the outcome is unknown, or the stream refused it
        all that time; `InvalidEvent`.
        """
        assert event.POLICY is not None
        subject = control_subject(event.POLICY, tenant, event.entity)
        if subject != after.subject:
            raise InvalidEvent(f"{event.TYPE} of {event.entity!r} belongs on {subject}, not after {after.subject}")
        if after.event is not None:
            self._clock.observe(after.event.id)
        here = scope.current()
        now = time or self._clock.now()
        head = Head(
            id=event_id or self._clock.next_id(),
            type=event.TYPE,
            version=event.written_version,
            entity=event.entity,
            time=now,
            tenant=tenant,
            region=self._region,
            correlationid=here.correlation,
            causationid=here.causation,
            traceparent=here.traceparent,
        )
        ruling = Ruling(
            rev=after.rev + 1,
            policy=event.POLICY,
            policyversion=policy_version,
            decidedat=decided_at or now,
            observedseq=observed_seq,
        )
        body = encode(
            head,
            data_json(event),
            source=self._source,
            publisher=subject,
            pseq=ruling.rev,
            prev=after.sha256,
            ruling=ruling,
        )
        if len(body) > MAX_EVENT_BYTES:
            raise InvalidEvent(f"{event.TYPE} of {event.entity!r} has {len(body)} bytes: put the bulk into content")
        seq = await self._compare_and_set(subject, body, head.id, after, timeout_s)
        copy = ControlCopy(subject, ruling.rev, head.id, body, seq, self._clock.now_us() // 1_000)
        self._on_append(copy)
        return Tail(subject=subject, seq=seq, rev=ruling.rev, sha256=body_sha256(body), event=decode(body))

    async def _compare_and_set(self, subject: str, body: bytes, event_id: str, after: Tail, timeout_s: float) -> int:
        deadline = time.monotonic() + timeout_s
        unknown: Exception | None = None
        while True:
            try:
                if (seq := await self._try(subject, body, event_id, after)) is not None:
                    return seq
            except TRANSIENT as error:
                unknown = error
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(RETRY_S)
        raise AckTimeout(
            f"control event {event_id} on {subject}: outcome unknown after {timeout_s:g} s ({unknown!r});"
            " read the subject's tail before deciding again"
        )

    async def _try(self, subject: str, body: bytes, event_id: str, after: Tail) -> int | None:
        """Where ours stands, or None while that is open; raises `Superseded` when another's stands there."""
        message_id = event_id
        for heal in range(1, MAX_HEALS):
            headers = {**HEADERS, "Nats-Msg-Id": message_id, EXPECTED_LAST: str(after.seq)}
            try:
                seq, duplicate = await request(self._client, subject, body, headers)
                if not duplicate:
                    return seq
            except StreamRefused as error:
                if error.code not in WRONG_LAST_SEQUENCE:
                    raise  # full, or short of something: tried again until the deadline
                duplicate = False
            found = await self._follower(after)
            if found is not None and found.data == body:
                return found.seq
            if found is not None:
                raise Superseded(
                    f"control event {event_id} on {subject} came after {_named(found)}: fold it, then decide again"
                )
            if not duplicate:
                await self._check_moved(after, event_id)
                return None
            # Called a duplicate, yet it stands nowhere: the store lost it, and only a fresh message id is taken.
            message_id = f"{event_id}#h{heal}"
        return None

    async def _follower(self, after: Tail) -> RawStreamMsg | None:
        """The first event on the subject that follows `after`: ours if we won, whoever appended since.

        Older revisions behind it were lost and put back: they decide nothing.
        """
        seq = after.seq
        while True:
            try:
                found = await self._answered(self._js.get_msg(STREAM, seq + 1, subject=after.subject, next=True))
            except NotFoundError:
                return None
            seq = found.seq or 0
            link = link_of(Message(seq, 0, after.subject, found.data or b""))
            if link is None or link.pseq > after.rev:
                return found

    async def _check_moved(self, after: Tail, event_id: str) -> None:
        """Raises `Superseded` where `after` is still the last revision but stands elsewhere now: it was put back."""
        last = await self._last(after.subject)
        if last is None:
            return  # lost: until it is put back nobody can append
        if (last.seq or 0) > after.seq and await self._follower(after) is None:
            raise Superseded(
                f"control event {event_id} on {after.subject}: revision {after.rev} was lost and put back as message"
                f" {last.seq}: fold it, then decide again"
            )

    async def _last(self, subject: str) -> RawStreamMsg | None:
        try:
            return await self._answered(self._js.get_last_msg(STREAM, subject))
        except NotFoundError:
            return None

    async def _counted(self, subject: str) -> bool:
        """Whether the stream counts messages on that subject, readable or not."""
        asking = self._js.stream_info(STREAM, subjects_filter=subject)
        info = await answered(self._client, asking, within_s=REQUEST_TIMEOUT_S + 1)
        return bool((info.state.subjects or {}).get(subject))

    async def _answered(self, asking: Coroutine[Any, Any, RawStreamMsg]) -> RawStreamMsg:
        return await answered(self._client, asking, within_s=REQUEST_TIMEOUT_S + 1)


def _tail(message: RawStreamMsg) -> Tail:
    event = decode(message.data or b"")
    return Tail(
        subject=message.subject or "",
        seq=message.seq or 0,
        rev=event.rev or 0,
        sha256=body_sha256(message.data or b""),
        event=event,
    )


def _named(winner: RawStreamMsg) -> str:
    try:
        event = decode(winner.data or b"")
    except Undecodable as error:
        return f"message {winner.seq} ({error.reason})"
    return f"revision {event.rev} ({event.id})"
