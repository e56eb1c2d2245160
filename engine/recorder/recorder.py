"""The recorder: takes events without ever blocking, and tells how far each has come."""

import asyncio
import hashlib
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future
from contextvars import Context
from dataclasses import replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar
from weakref import WeakSet

from nats.aio.client import Client
from nats.js import JetStreamContext
from pydantic import TypeAdapter, ValidationError

from relight.engine import scope
from relight.engine.clock import Clock
from relight.engine.errors import AckTimeout, RecorderError
from relight.engine.log.control import ControlLog, Tail
from relight.engine.proving.models import Attestation
from relight.engine.recorder.exiting import stopped_at_exit
from relight.engine.recorder.handover import hand_over
from relight.engine.recorder.items import Fact, Kept, Made, Part, Taken
from relight.engine.recorder.making import TYPICAL_ENVELOPE_BYTES, checked_json
from relight.engine.recorder.options import RecorderHealth as RecorderHealth
from relight.engine.recorder.options import RecorderOptions as RecorderOptions
from relight.engine.recorder.receipts import Ack, Receipt
from relight.engine.recorder.session import Session
from relight.engine.recorder.watchdog import Watch, Watchdog
from relight.engine.scope import Scope
from relight.engine.spool.spool import SpooledContent
from relight.events.base import Event
from relight.events.errors import InvalidEvent
from relight.events.values import Content, EventId

_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_ids = TypeAdapter(EventId)

F = TypeVar("F")
FactT = TypeVar("FactT", bound=Fact)
T = TypeVar("T")

log = logging.getLogger(__name__)


class Recorder:
    """One publisher. Safe to use from any thread; a context manager, with and without a loop.

    Two threads work for it: one writes the spool, one runs a loop of its own that talks to NATS. So a caller whose
    own loop is busy, or who has none, is served all the same. A third one sees that they do, and has recording go on
    under another identity where a spool is of no use any more. In a fork()ed child it begins anew under an identity of
    the child's own, with the first call.
    """

    def __init__(self, options: RecorderOptions, *, clock: Clock | None = None) -> None:
        self.options = options
        self.clock = clock or Clock()
        self.ack_timeout_s = options.ack_timeout_s
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._last: Session | None = None
        self._watch: Watch | None = None
        self._watchdog: Watchdog | None = None
        self._restarts = 0
        self._parents: list[object] = []
        self._forked = False
        self._beside: dict[type, object] = {}
        _recorders.add(self)

    @property
    def publisher(self) -> str:
        """The identity in use, or the last one."""
        return self._of_last().publisher

    def start(self) -> None:
        """Takes a slot and starts its threads; NATS may be away, and the disk: then events are held in memory."""
        with self._lock:
            if self._session is None:
                self._begin()

    def stop(self, *, deadline_s: float = 10) -> None:
        """Says `recorder.closed`, writes all that was taken, drains what it can until the deadline. Idempotent."""
        with self._lock:
            session, self._session, self._forked = self._session, None, False
            if self._watchdog is not None:
                self._watchdog.stop()
            if session is not None and not session.stop(deadline_s):
                log.warning("recorder %s stops with events in its spool", self.publisher, extra={"action": "undrained"})

    def record(self, event: Event, *, id: str | None = None, time: datetime | None = None) -> Receipt:
        """Takes an event; microseconds, and it never blocks.

        The scope around says tenant, correlation and causation. `id` and `time` are for sources with their own.
        Raises `InvalidEvent` for what cannot be recorded, and nothing else: for want of space the event is refused and
        counted, and its receipt says so.
        """
        session = self._session or self._restarted()
        data = checked_json(event)
        if id is not None:
            _check_id(event, id)
        if time is not None and time.tzinfo is None:
            raise InvalidEvent(f"{event.TYPE} of {event.entity!r}: time {time} has no zone")
        here = scope.current()
        receipt = Receipt(session, id or self.clock.next_id())
        counted_bytes = len(data) + TYPICAL_ENVELOPE_BYTES
        if cause := session.room.take(counted_bytes):
            session.writer.refuse(receipt, cause)
            return receipt
        session.writer.put(
            Taken(
                receipt=receipt,
                type=event.TYPE,
                version=event.written_version,
                entity=event.entity,
                time_us=self.clock.now_us() if time is None else (time - _EPOCH) // _MICROSECOND,
                tenant=here.tenant or self.options.tenant,
                correlation=here.correlation,
                causation=here.causation,
                traceparent=here.traceparent,
                data=data,
                counted_bytes=counted_bytes,
            )
        )
        return receipt

    def defer(
        self,
        make: Callable[[F], Iterable[Made | Kept]],
        fact: F,
        scope: Scope | Context,
        events: int = 1,
        *,
        at_once: bool = False,
    ) -> int:
        """Takes a fact, of which `make` makes about so many events later, in the writer's thread; half a microsecond.

        It is written within a quarter of a second; `at_once` wakes the writer for it, which costs some microseconds.

        They are recorded as if `record` had been called now: in this order, in this scope, counted where they cannot
        be. The fact belongs to the recorder from here on. `make` yields content before the event that has its digest.
        `scope` may be a copy of the context that it stands in. Returns how many events wait to be made.
        """
        session = self._session or self._restarted()
        room = session.room
        if room.expected_events < room.unlooked_until:
            room.expected_events += events
            cause = None
        else:
            cause = room.expect(events)
        if cause is not None:
            session.writer.refusals.add(cause, events)
        else:
            writer = session.writer
            writer.defer((make, fact, scope, events))
            if at_once or writer.ended:
                writer.look(at_once=at_once)
        return room.expected_events - room.made_events

    def deferring(
        self,
        make: Callable[[FactT], Iterable[Made | Kept]],
        otherwise: Callable[[FactT], None],
        *,
        events: int = 1,
        then: Part | None = None,
    ) -> Callable[[FactT], None]:
        """`defer` for facts of one kind, which hold the scope that they stand in; a seventh of a microsecond.

        `otherwise` gets those at which somebody has to look before: whether there is room, or a recorder that runs.
        `then`: each is put once more, by what `ending` gives.
        """
        part = Part(make, events, then)

        def taken(fact: FactT) -> None:
            fact.part = part
            if (session := self._session) is not None:
                room = session.room
                if room.expected_events < room.unlooked_until:
                    room.expected_events += events
                    writer = session.writer
                    fact.begins_in = defer = writer.defer
                    defer(fact)
                    if writer.ended:
                        writer.look(at_once=False)
                    return
            fact.begins_in = None
            otherwise(fact)

        return taken

    def ending(self, part: Part, otherwise: Callable[[FactT], None]) -> Callable[[FactT], None]:
        """Takes facts that were put with their beginning, and have come to their end: the `then` of that."""
        events = part.events

        def taken(fact: FactT) -> None:
            if (session := self._session) is not None:
                room = session.room
                if room.expected_events < room.unlooked_until:
                    room.expected_events += events
                    writer = session.writer
                    writer.defer(fact)
                    if writer.ended:
                        writer.look(at_once=False)
                    return
            otherwise(fact)

        return taken

    def press_at(self, events: int) -> None:
        """From so many waiting facts on, `deferring` hands each to its `otherwise`: what is large is better let go."""
        if (session := self._session) is not None:
            session.room.pressed_events = events

    def mark(self) -> Receipt:
        """Of the last event of all that was recorded and deferred until now, by whomever."""
        session = self._session or self._restarted()
        receipt = Receipt(session, self.clock.next_id())

        def written() -> None:
            here = self._session or session  # recording may have gone on elsewhere since
            receipt.moved_to(here)
            receipt.settle(pseq=here.writer.last_pseq)

        session.writer.put(written)
        return receipt

    def content(self, body: bytes) -> Content:
        """Keeps `body` in the spool and then in the content store, under the tenant and its SHA-256.

        Returns what an event holds of it. Content of an event reaches the store before the event reaches the stream.
        For want of space it is not kept, which is counted: fetching it then raises `ContentError`.
        """
        session = self._session or self._restarted()
        sha256 = hashlib.sha256(body).hexdigest()
        if cause := session.room.take(len(body), events=0):
            session.refused_contents += 1
            log.warning("content %s is not kept: %s", sha256, cause, extra={"action": "content_refused"})
        else:
            tenant = scope.current().tenant or self.options.tenant
            session.writer.put(SpooledContent(tenant, sha256, body, self.clock.now_us() // 1_000))
        return Content(sha256=sha256, size_bytes=len(body))

    def reach(self, receipt: Receipt, ack: Ack) -> "Future[None]":
        """A future of `Receipt.reached`."""
        return (receipt.acknowledger or self._session or self._restarted()).reach(receipt, ack)

    def in_loop(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """Runs a coroutine in the recorder's own loop, where its NATS client lives; the scope goes with it."""
        return (self._session or self._restarted()).uplink.in_loop(coroutine)

    async def with_control(self, work: Callable[[ControlLog], Awaitable[T]]) -> T:
        """In the recorder's loop: works with the control log, once NATS was reached. Raises `Unreachable`."""
        return await (self._session or self._restarted()).uplink.with_control(work, self.ack_timeout_s)

    async def with_jetstream(self, work: Callable[[JetStreamContext], Awaitable[T]]) -> T:
        """In the recorder's loop: works with JetStream, once NATS was reached. Raises `Unreachable`."""
        return await (self._session or self._restarted()).uplink.with_jetstream(work, self.ack_timeout_s)

    async def client(self) -> Client:
        """In the recorder's loop: its client, once NATS was reached; another one later. Raises `Unreachable`."""
        return await (self._session or self._restarted()).uplink.client(self.ack_timeout_s)

    def beside(self, kind: type[T], make: Callable[[], T]) -> T:
        """What others keep one of for each recorder: made with the first call, and gone with it."""
        found = self._beside.get(kind)
        if found is None:
            found = self._beside.setdefault(kind, make())
        assert isinstance(found, kind)
        return found

    async def ruling_projected(self, tail: Tail, *, timeout_s: float | None = None) -> None:
        """Waits until the control event at `tail` is in the tables. Raises `AckTimeout`, `DeadLettered`."""
        timeout_s = self.ack_timeout_s if timeout_s is None else timeout_s
        uplink = (self._session or self._restarted()).uplink
        try:
            reached = uplink.in_loop(uplink.projected(tail.subject, tail.rev))
            async with asyncio.timeout(timeout_s):
                await asyncio.wrap_future(reached)
        except TimeoutError:
            raise AckTimeout(
                f"revision {tail.rev} of {tail.subject} was not projected within {timeout_s:g} s: does a projector run?"
            ) from None

    async def attestation(self) -> Attestation:
        """Whether REPLICATED can be promised now; what was found if not."""
        uplink = (self._session or self._restarted()).uplink
        return await asyncio.wrap_future(uplink.in_loop(uplink.attest()))

    def health(self) -> RecorderHealth:
        """Counts and what fails now; after the end, the last ones."""
        health = self._of_last().health()
        restarts = self._restarts + (self._watch.restarts if self._watch else 0)
        return replace(health, restarts=health.restarts + restarts)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.shield(asyncio.to_thread(self.stop))

    def _begin(self) -> None:
        session = Session(self.options, self.clock)
        session.start()
        self._session = self._last = session
        self._watch, self._watchdog = Watch(session), Watchdog(self._look)
        self._watchdog.start()
        self._forked = False
        stopped_at_exit(self)

    def _look(self) -> None:
        """The watchdog's; leaves alone what is just being started or stopped."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._session is None or self._watch is None or not self._watch.look():
                return
            if (successor := hand_over(self._session, self.options, self.clock)) is not None:
                self._restarts += self._watch.restarts
                successor.room.pressed_events = self._session.room.pressed_events
                self._session = self._last = successor
                self._watch = Watch(successor)
        finally:
            self._lock.release()

    def _restarted(self) -> Session:
        """The session of a fork()ed child."""
        if self._session is None and not self._forked:  # nobody waits for one that is being stopped, its loop least
            raise RecorderError("the recorder is not running: use it inside its `with`")
        with self._lock:
            if self._session is None:
                if not self._forked:
                    raise RecorderError("the recorder is not running: use it inside its `with`")
                self._begin()
            assert self._session is not None
            return self._session

    def _of_last(self) -> Session:
        session = self._session or (self._restarted() if self._forked else self._last)
        if session is None:
            raise RecorderError("the recorder is not running: use it inside its `with`")
        return session

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        if self._session is not None:
            self._session.abandon()
            self._parents += (self._session, self._watchdog)
            self._session, self._watch, self._watchdog, self._forked = None, None, None, True


def _check_id(event: Event, id: str) -> None:
    try:
        _ids.validate_python(id)
    except ValidationError:
        raise InvalidEvent(f"{event.TYPE} of {event.entity!r}: id {id!r} is no UUIDv7 in lower case") from None


_recorders: "WeakSet[Recorder]" = WeakSet()


def _after_fork_in_child() -> None:
    for recorder in list(_recorders):
        recorder._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
