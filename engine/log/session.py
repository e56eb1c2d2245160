"""A recorder at work under one identity: its slot, the thread that writes it, the thread that drains it."""

import os
import socket
import threading
import time
from concurrent.futures import Future
from functools import partial

from relight.engine.clock import Clock
from relight.engine.errors import AckNotProven, RecorderError, RecordRefused
from relight.engine.log.options import RecorderHealth, RecorderOptions
from relight.engine.log.receipts import Ack, Receipt, Watermark, complete
from relight.engine.log.room import Room
from relight.engine.log.slots import Slot, take_slot, undurable_slot
from relight.engine.log.uplink import Uplink
from relight.engine.log.writer import Writer
from relight.events.recorder import RecorderOpened

CLOSING_S = 2.0
"""What the threads get to end, even when the deadline has passed."""


class Session:
    """From `recorder.opened` to `recorder.closed`; every receipt belongs to the session that gave it."""

    def __init__(self, options: RecorderOptions, clock: Clock) -> None:
        self.ack_timeout_s = options.ack_timeout_s
        self._options = options
        self._slot = _slot(options)
        spool = self._slot.spool
        self.publisher = self._slot.publisher
        self._head = spool.head()
        self._spooled, self._acked = Watermark(self._head[0]), Watermark(spool.acked_pseq())
        self.room = Room(
            max_waiting_events=options.memory_max_events,
            max_bytes=options.spool_max_bytes,
            exposed_bytes=spool.exposure().bytes,
        )
        self.writer = Writer(
            self._slot, region=options.region, clock=clock, room=self.room, spooled=self._spooled, woken=self._wake
        )
        self.uplink = Uplink(
            options, self._slot, self.writer, acked=self._acked, release=self.room.release, clock=clock
        )
        self._lock = threading.Lock()
        self._reaching: set[Future[None]] = set()
        self._over: str | None = None
        self.refused_contents = 0

    def start(self) -> None:
        self.writer.announces = self._options.publisher is None
        if self.writer.announces:
            self.writer.put(self.writer.own(self._opened()))
        self.writer.start()
        self.uplink.start()

    def stop(self, deadline_s: float) -> bool:
        """Writes all that was taken and `recorder.closed`, drains until the deadline; whether all was acknowledged."""
        deadline = time.monotonic() + deadline_s
        written: Future[None] = Future()
        self.writer.finish(partial(complete, written))
        drained = _within(written, deadline) and self.uplink.drained(self._spooled.value, deadline)
        self.uplink.stop(max(CLOSING_S, deadline - time.monotonic()))
        # Now every acknowledgement stands in the writer's queue; it ends once they are written.
        if self.writer.stop(max(CLOSING_S, deadline - time.monotonic())):
            self._slot.close()
        self._end("the recorder is closed: `relight status` shows what waits in its spool")
        return drained

    def abandon(self) -> None:
        """In a fork()ed child: none of the threads came along, and the spool is the parent's.

        Nothing is closed here: SQLite's files and the loop's descriptors are shared with the parent ("How to corrupt
        an SQLite database file", section 2.7).
        """
        self._lock = threading.Lock()
        self._end("the event was recorded in the process that this one was forked from: wait for it there")

    def health(self) -> RecorderHealth:
        writer = self.writer
        return RecorderHealth(
            publisher=self.publisher,
            recorded_events=writer.recorded_events,
            refused_events=writer.refusals.count,
            exposed_events=max(0, self._spooled.value - self._acked.value) + self.room.waiting_events,
            exposed_bytes=self.room.exposed_bytes,
            failure=writer.failure or self.uplink.failure,
            refused_contents=self.refused_contents,
        )

    def reach(self, receipt: Receipt, ack: Ack) -> "Future[None]":
        """A future of `Receipt.reached`; ends with the session at the latest."""
        future: Future[None] = Future()
        with self._lock:
            over = self._over
            if over is None:
                self._reaching.add(future)
        settled = receipt.refused is not None or (receipt.pseq is not None and ack is Ack.SPOOLED)
        if over is not None and not settled:
            complete(future, RecorderError(f"event {receipt.id} cannot be followed: {over}"))
            return future
        future.add_done_callback(self._reached)
        receipt.when_settled(lambda: self._reach_settled(receipt, ack, future))
        return future

    def _reached(self, future: "Future[None]") -> None:
        with self._lock:
            self._reaching.discard(future)

    def _end(self, why: str) -> None:
        with self._lock:
            self._over = why
            reaching = list(self._reaching)
        for future in reaching:
            complete(future, RecorderError(why))

    def _reach_settled(self, receipt: Receipt, ack: Ack, future: "Future[None]") -> None:
        if receipt.pseq is None:
            complete(future, RecordRefused(f"event {receipt.id} was not recorded: {receipt.refused}; it is counted"))
        elif ack is Ack.SPOOLED and self._slot.spool.durable:
            complete(future)
        elif ack is Ack.SPOOLED:
            complete(future, AckNotProven(f"event {receipt.id}: there is no spool on disk; ask for replicated instead"))
        else:
            acked: Future[None] = Future()
            self._acked.when(receipt.pseq, acked)
            acked.add_done_callback(lambda _: self._reach_acked(receipt, ack, future))

    def _reach_acked(self, receipt: Receipt, ack: Ack, future: "Future[None]") -> None:
        """Called in any thread; what is left to find out is found out in the uplink's loop, while somebody waits."""
        if future.done():
            return
        work = (
            self._prove(receipt.id)
            if ack is Ack.REPLICATED
            else self.uplink.projected(self.publisher, receipt.pseq or 0)
        )
        try:
            running = self.uplink.in_loop(work)
        except RecorderError as error:
            complete(future, error)
            return
        running.add_done_callback(lambda done: _pass_on(done, future))
        future.add_done_callback(lambda waited: running.cancel() if waited.cancelled() else None)

    async def _prove(self, event_id: str) -> None:
        attestation = await self.uplink.attest()
        if not attestation.proven:
            found = "; ".join(attestation.faults)
            raise AckNotProven(f"event {event_id} is acknowledged by the stream, but not proven durable: {found}")

    def _wake(self) -> None:
        self.uplink.wake()

    def _opened(self) -> RecorderOpened:
        pseq, sha256 = self._head
        return RecorderOpened(
            publisher=self.publisher,
            predecessor_pseq=pseq,
            predecessor_sha256=sha256,
            host=socket.gethostname(),
            process_id=os.getpid(),
            durable=self._slot.spool.durable,
        )


def _within(future: "Future[None]", deadline: float) -> bool:
    try:
        future.result(max(0.0, deadline - time.monotonic()))
    except TimeoutError:
        return False
    return True


def _pass_on(done: "Future[None]", to: "Future[None]") -> None:
    if done.cancelled():
        complete(to, RecorderError("the recorder was closed meanwhile"))
    elif (error := done.exception()) is None:
        complete(to)
    else:
        complete(to, error if isinstance(error, Exception) else RecorderError(repr(error)))


def _slot(options: RecorderOptions) -> Slot:
    if options.spools is not None and options.publisher is None:
        return take_slot(options.spools)
    return undurable_slot(options.publisher, published_pseq=options.published_pseq)
