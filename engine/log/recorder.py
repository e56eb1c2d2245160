"""The recorder: takes events without ever blocking, and tells how far each has come."""

import asyncio
import hashlib
import logging
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from nats.aio.client import Client
from nats.js import JetStreamContext

from relight.engine import scope
from relight.engine.clock import Clock
from relight.engine.errors import AckNotProven, AckTimeout, RecorderError, RecordRefused
from relight.engine.log.control import ControlLog, Tail
from relight.engine.log.drainer import Drainer
from relight.engine.log.proof import Attestation, Prober
from relight.engine.log.receipts import Ack, Receipt, Watermark, complete
from relight.engine.log.slots import Slot, orphans, take_slot, undurable_slot
from relight.engine.log.spool import Acked, SpooledContent
from relight.engine.log.topology import MAX_EVENT_BYTES, REQUEST_TIMEOUT_S, connect, ensure_stream
from relight.engine.log.watermarks import ProjectedWatermarks
from relight.engine.log.writer import Taken, Writer, data_json
from relight.events.base import Control, Event
from relight.events.errors import InvalidEvent
from relight.events.recorder import RecorderClosed, RecorderOpened
from relight.events.values import Content

RESERVED_BYTES = 64 * 1024
"""Of the spool's cap: for `recorder.gap` and `recorder.closed`, so that a full spool can still say so."""
EVICT_EVERY_S = 5.0
EVICT_EVENTS = 5_000
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RecorderOptions:
    """What a recorder is told; `spools` is the folder of its spools, None on hosts without a durable disk.

    `publisher` fixes the identity of a source that can be read again (an importer): it has no spool on disk, and does
    not announce itself, so that the same source gives the same bytes.
    """

    nats_url: str
    region: str
    tenant: str
    spools: Path | None
    nats_monitor_urls: Sequence[str] = ()
    publisher: str | None = None
    spool_max_bytes: int = 1 << 30
    spool_retention_s: float = 600
    memory_max_events: int = 100_000
    ack_timeout_s: float = 30
    proof_ttl_s: float = 60


@dataclass(frozen=True, kw_only=True)
class RecorderHealth:
    """What a recorder knows of itself; times in seconds, sizes in bytes."""

    publisher: str
    recorded_events: int
    refused_events: int
    exposed_events: int
    exposed_bytes: int
    failure: str | None


class Recorder:
    """One publisher. Safe to use from any thread; a context manager, with and without a loop.

    Two threads work for it: one writes the spool, one runs a loop of its own that talks to NATS. So a caller whose
    own loop is busy, or who has none, is served all the same.
    """

    def __init__(self, options: RecorderOptions, *, clock: Clock | None = None) -> None:
        self.options = options
        self.clock = clock or Clock()
        self.ack_timeout_s = options.ack_timeout_s
        self._lock = threading.Lock()
        self._started = False
        self._forked = False
        os.register_at_fork(after_in_child=self._after_fork)

    def start(self) -> None:
        """Takes a slot and starts both threads; NATS may be away. Raises `SpoolUnusable`."""
        with self._lock:
            if self._started:
                return
            options = self.options
            durable = options.spools is not None and options.publisher is None
            self._slot = take_slot(options.spools) if options.spools and durable else undurable_slot(options.publisher)
            self.publisher = self._slot.publisher
            self._spooled, self._acked = Watermark(self._slot.spool.head()[0]), Watermark(self._slot.spool.acked_pseq())
            self._writer = Writer(
                self._slot, region=options.region, clock=self.clock, spooled=self._spooled, woken=self._wake_drainer
            )
            self._loop = asyncio.new_event_loop()
            self._drainer: Drainer | None = None
            self._connected: Future[None] = Future()
            self._drain_thread = threading.Thread(target=self._run_loop, name="relight-drainer", daemon=True)
            self._started = True
            if options.publisher is None:
                self._announce()
            self._writer.start()
            self._drain_thread.start()

    def stop(self, *, deadline_s: float = 10) -> None:
        """Says `recorder.closed`, writes all that was taken, drains what it can until the deadline. Idempotent."""
        with self._lock:
            if not self._started:
                return
            self._started = False
            if self.options.publisher is None:
                closed = RecorderClosed(
                    publisher=self.publisher,
                    recorded_events=self._writer.recorded_events + self._writer.waiting_events,
                    refused_events=self._writer.refused_events,
                )
                self._writer.put(self._writer.taken(closed, Receipt(self, self.clock.next_id())))
            flushed: Future[None] = Future()
            self._writer.put(lambda: complete(flushed))
            self._quietly(flushed, deadline_s)
            drained: Future[None] = Future()
            self._acked.when(self._spooled.value, drained)
            if self._connected.done():
                self._quietly(drained, deadline_s)
            self._loop.call_soon_threadsafe(self._main.cancel)
            self._drain_thread.join(deadline_s)
            self._writer.stop(deadline_s)
            self._slot.close()

    def record(self, event: Event, *, id: str | None = None, time: datetime | None = None) -> Receipt:
        """Takes an event; microseconds, and it never blocks.

        The scope around says tenant, correlation and causation. `id` and `time` are for sources with their own.
        Raises `InvalidEvent` for what cannot be recorded, and nothing else: for want of space the event is refused and
        counted, and its receipt says so.
        """
        if self._forked or not self._started:
            self._restart()
        if isinstance(event, Control):
            raise InvalidEvent(f"{event.TYPE} is a ruling: append it to its subject with control.append")
        data = data_json(event)
        if len(data) > MAX_EVENT_BYTES - 16_384:
            raise InvalidEvent(f"{event.TYPE} of {event.entity!r} has {len(data)} bytes: put the bulk into content")
        here = scope.current()
        receipt = Receipt(self, id or self.clock.next_id())
        if cause := self._full(len(data)):
            self._writer.refuse(receipt, cause)
            return receipt
        self._writer.put(
            Taken(
                receipt=receipt,
                type=event.TYPE,
                version=event.VERSION,
                entity=event.entity,
                time_us=self.clock.now_us() if time is None else (time - _EPOCH) // _MICROSECOND,
                tenant=here.tenant or self.options.tenant,
                correlation=here.correlation,
                causation=here.causation,
                traceparent=here.traceparent,
                data=data,
            )
        )
        return receipt

    def content(self, body: bytes) -> Content:
        """Keeps `body` in the spool and then in the content store, under the tenant and its SHA-256.

        Returns what an event holds of it. Content of an event reaches the store before the event reaches the stream.
        """
        if self._forked or not self._started:
            self._restart()
        sha256 = hashlib.sha256(body).hexdigest()
        tenant = scope.current().tenant or self.options.tenant
        self._writer.put(SpooledContent(tenant, sha256, body, self.clock.now_us() // 1_000))
        return Content(sha256=sha256, size_bytes=len(body))

    def reach(self, receipt: Receipt, ack: Ack) -> "Future[None]":
        """A future of `Receipt.reached`."""
        future: Future[None] = Future()
        receipt.when_settled(lambda: self._reach_settled(receipt, ack, future))
        return future

    def in_loop(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """Runs a coroutine in the recorder's own loop, where its NATS client lives; the scope goes with it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def with_control(self, work: Callable[[ControlLog], Awaitable[T]]) -> T:
        """In the recorder's loop: works with the control log, once NATS was reached."""
        await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._connected)), self.ack_timeout_s)
        return await work(self._control)

    async def with_jetstream(self, work: Callable[[JetStreamContext], Awaitable[T]]) -> T:
        """In the recorder's loop: works with JetStream, once NATS was reached."""
        await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._connected)), self.ack_timeout_s)
        return await work(self._client.jetstream(timeout=REQUEST_TIMEOUT_S))

    async def ruling_projected(self, tail: Tail, *, timeout_s: float | None = None) -> None:
        """Waits until the control event at `tail` is in the tables. Raises `AckTimeout`, `DeadLettered`."""
        timeout_s = self.ack_timeout_s if timeout_s is None else timeout_s
        try:
            reached = self.in_loop(self._watermarks.reached(tail.subject, tail.rev))
            await asyncio.wait_for(asyncio.wrap_future(reached), timeout_s)
        except TimeoutError:
            raise AckTimeout(
                f"revision {tail.rev} of {tail.subject} was not projected within {timeout_s:g} s: is a projector running?"
            ) from None

    async def attestation(self) -> Attestation:
        """Whether REPLICATED can be promised now; what was found if not."""
        return await asyncio.wrap_future(self.in_loop(self._attest()))

    def health(self) -> RecorderHealth:
        """Counts and what fails now."""
        writer, drainer = self._writer, self._drainer
        failure = str(writer.failure) if writer.failure else drainer.failure if drainer else "not connected to NATS yet"
        return RecorderHealth(
            publisher=self.publisher,
            recorded_events=writer.recorded_events,
            refused_events=writer.refused_events,
            exposed_events=max(0, self._spooled.value - self._acked.value) + writer.waiting_events,
            exposed_bytes=writer.exposed_bytes,
            failure=failure,
        )

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

    def _full(self, size: int) -> str | None:
        if self._writer.waiting_events >= self.options.memory_max_events:
            return f"{self.options.memory_max_events} events wait for the disk (RELIGHT_MEMORY_MAX_EVENTS)"
        if self._writer.exposed_bytes + size > self.options.spool_max_bytes - RESERVED_BYTES:
            return f"{self.options.spool_max_bytes} bytes wait for the stream (RELIGHT_SPOOL_MAX_BYTES)"
        return None

    def _announce(self) -> None:
        pseq, sha256 = self._slot.spool.head()
        opened = RecorderOpened(
            publisher=self.publisher,
            predecessor_pseq=pseq,
            predecessor_sha256=sha256,
            host=socket.gethostname(),
            process_id=os.getpid(),
            durable=self._slot.spool.durable,
        )
        self._writer.put(self._writer.taken(opened, Receipt(self, self.clock.next_id())))

    def _reach_settled(self, receipt: Receipt, ack: Ack, future: "Future[None]") -> None:
        if receipt.pseq is None:
            complete(future, RecordRefused(f"event {receipt.id} was not recorded: {receipt.refused}; it is counted"))
        elif ack is not Ack.SPOOLED:
            self._loop.call_soon_threadsafe(
                lambda: self._loop.create_task(self._reach_in_loop(receipt.pseq or 0, receipt.id, ack, future))
            )
        elif self._slot.spool.durable:
            complete(future)
        else:
            complete(future, AckNotProven(f"event {receipt.id}: there is no spool on disk; ask for replicated instead"))

    async def _reach_in_loop(self, pseq: int, event_id: str, ack: Ack, future: "Future[None]") -> None:
        try:
            acked: Future[None] = Future()
            self._acked.when(pseq, acked)
            await asyncio.wrap_future(acked)
            if ack is Ack.REPLICATED:
                attestation = await self._attest()
                if not attestation.proven:
                    found = "; ".join(attestation.faults)
                    raise AckNotProven(f"event {event_id} is acknowledged by the stream, but not proven durable: {found}")
            else:
                await self._watermarks.reached(self.publisher, pseq)
        except RecorderError as error:
            complete(future, error)
        else:
            complete(future)

    async def _attest(self) -> Attestation:
        await asyncio.shield(asyncio.wrap_future(self._connected))
        return await self._prober.attest()

    def _wake_drainer(self) -> None:
        if self._drainer is not None:
            self._loop.call_soon_threadsafe(self._drainer.wake)

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._main = self._loop.create_task(self._talk_to_nats())
        try:
            self._loop.run_until_complete(self._main)
        except asyncio.CancelledError:
            pass
        finally:
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _talk_to_nats(self) -> None:
        options = self.options
        client = await connect(options.nats_url, name=f"relight recorder {self.publisher}", patient=True)
        self._client = client
        reader = self._slot.spool.reader()
        try:
            await self._declare_stream(client)
            self._prober = Prober(client, monitor_urls=options.nats_monitor_urls, ttl_s=options.proof_ttl_s)
            self._watermarks = ProjectedWatermarks(client)
            self._control = ControlLog(
                client,
                region=options.region,
                publisher=self.publisher,
                clock=self.clock,
                on_append=self._writer.put,
            )
            self._drainer = Drainer(
                client,
                reader,
                acked=self._acked,
                on_ack=self._on_ack,
                on_content=self._on_content,
                clock=self.clock,
            )
            complete(self._connected)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._drainer.run())
                tasks.create_task(self._evict())
                tasks.create_task(self._drain_orphans(client))
        finally:
            if reader is not self._slot.spool:
                reader.close()
            await client.close()

    async def _declare_stream(self, client: Client) -> None:
        while True:
            try:
                return await ensure_stream(client.jetstream(timeout=5))
            except Exception as error:  # noqa: BLE001  # a server that starts or elects: recording goes on meanwhile
                log.warning("stream cannot be declared yet: %r", error, extra={"action": "declare_retry"})
                await asyncio.sleep(0.5)

    def _on_ack(self, acked: Acked, size: int) -> None:
        self._writer.put(acked)
        self._writer.exposed_bytes -= size

    def _on_content(self, contents: Sequence[SpooledContent]) -> None:
        keys = [(content.tenant, content.sha256) for content in contents]
        self._writer.put(lambda: self._slot.spool.content_stored(keys))

    async def _evict(self) -> None:
        """What is projected, and was acknowledged longer ago than the retention time, leaves the spool."""
        while True:
            await asyncio.sleep(min(EVICT_EVERY_S, self.options.spool_retention_s))
            projected = await self._watermarks.ask(self.publisher, 0)
            before_ms = self.clock.now_us() // 1_000 - round(self.options.spool_retention_s * 1_000)
            spool = self._slot.spool
            self._writer.put(
                lambda: (spool.evict(up_to_pseq=projected, acked_before_ms=before_ms, limit=EVICT_EVENTS), None)[1]
            )

    async def _drain_orphans(self, client: Client) -> None:
        """Drains, once, spools that processes left behind when they died; their identity is not written to."""
        if self.options.spools is None:
            return
        for slot in orphans(self.options.spools):
            try:
                acked = Watermark(slot.spool.acked_pseq())
                drainer = Drainer(
                    client,
                    slot.spool,
                    acked=acked,
                    on_ack=lambda acked, _, slot=slot: slot.spool.commit([], acks=[acked]),  # type: ignore[misc]
                    on_content=lambda contents, slot=slot: slot.spool.content_stored(  # type: ignore[misc]
                        [(c.tenant, c.sha256) for c in contents]
                    ),
                    clock=self.clock,
                )
                await drainer.run(until_empty=True)
                log.info("drained the spool of %s", slot.publisher, extra={"action": "orphan_drained"})
            finally:
                slot.close()

    def _quietly(self, future: "Future[None]", timeout_s: float) -> None:
        try:
            future.result(timeout_s)
        except TimeoutError:
            log.warning("recorder %s stops with events in its spool", self.publisher, extra={"action": "undrained"})

    def _after_fork(self) -> None:
        """A child has none of the threads, and must not write under its parent's identity: it takes a slot anew."""
        self._forked = self._started
        self._lock = threading.Lock()

    def _restart(self) -> None:
        if not self._forked:
            raise RecorderError("the recorder is not running: use it inside its `with`")
        # The parent's connections stay as they are: closing them here would disturb the parent (SQLite's "how to
        # corrupt", section 2.7), so the objects are kept.
        self._parents = (self._slot, self._loop)
        self._forked = self._started = False
        self.start()
