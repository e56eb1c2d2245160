"""A recorder at work under one identity: its slot, the thread that writes it, the thread that drains it."""

import logging
import os
import socket
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from relight.engine.clock import Clock
from relight.engine.errors import AckNotProven, RecorderError, RecordRefused, SpoolFault, SpoolUnusable
from relight.engine.recorder.loop_thread import Restarted
from relight.engine.recorder.options import RecorderHealth, RecorderOptions
from relight.engine.recorder.receipts import Ack, Receipt, Watermark, complete
from relight.engine.recorder.room import Room
from relight.engine.recorder.uplink import Uplink
from relight.engine.recorder.writer import Writer
from relight.engine.spool.slots import Slot, take_slot, undurable_slot
from relight.events.recorder import RecorderOpened

CLOSING_S = 2.0
"""What the threads get to end, even when the deadline has passed."""
WATCH_S = 0.25
MEMORY_MAX_BYTES = 128 << 20
"""In place of the cap on disk, where there is no disk for the moment."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Counts that outlive an identity."""

    recorded_events: int = 0
    refused_events: int = 0
    evicted_unsealed: int = 0
    restarts: int = 0


class Session:
    """From `recorder.opened` to `recorder.closed`; every receipt belongs to the session that gave it."""

    def __init__(
        self, options: RecorderOptions, clock: Clock, *, slot: Slot | None = None, spool_fault: str | None = None
    ) -> None:
        self.ack_timeout_s = options.ack_timeout_s
        self._options = options
        self.spool_fault = spool_fault
        """Why it records in memory although it should have a spool on disk."""
        self.fault: SpoolFault | None = None
        self._slot = slot or self._take_slot()
        spool = self._slot.spool
        self.durable = spool.durable
        self.publisher = self._slot.publisher
        self._head = spool.head()
        self._spooled, self._acked = Watermark(self._head[0]), Watermark(spool.acked_pseq())
        in_memory = self.spool_fault is not None
        max_bytes = min(options.spool_max_bytes, MEMORY_MAX_BYTES) if in_memory else options.spool_max_bytes
        self.room = Room(
            max_waiting_events=options.memory_max_events,
            max_bytes=max_bytes,
            exposed=spool.exposed_sizes(),
            in_memory=in_memory,
        )
        self.writer = Writer(
            self._slot,
            region=options.region,
            tenant=options.tenant,
            clock=clock,
            room=self.room,
            spooled=self._spooled,
            woken=self._wake,
            max_bytes=max_bytes,
        )
        self.uplink = Uplink(options, self._slot, self.writer, acked=self._acked, room=self.room, clock=clock)
        self._lock = threading.Lock()
        self._reaching: dict[Future[None], Receipt] = {}
        self._over: str | None = None
        self._before = Totals()
        self.refused_contents = 0

    def _take_slot(self) -> Slot:
        options = self._options
        if options.spools is None or options.publisher is not None:
            return undurable_slot(options.publisher, published_pseq=options.published_pseq)
        try:
            return take_slot(options.spools, max_bytes=options.spool_max_bytes)
        except SpoolUnusable as error:
            self.spool_fault, self.fault = str(error), error.fault
            log.error(
                "%s. Until it can be written, events are held in memory, and nothing is promised but REPLICATED",
                error,
                extra={"action": "no_spool"},
            )
            return undurable_slot()

    @property
    def slot(self) -> Slot:
        """The spool that it writes."""
        return self._slot

    @property
    def damage(self) -> SpoolUnusable | None:
        """Why it has to go on in another spool, under another identity."""
        upkeep = self.uplink.upkeep
        if upkeep is not None and upkeep.forked and self._options.publisher is None:
            return SpoolUnusable(upkeep.alarm or "its identity is used by another", fault=SpoolFault.FORKED)
        return self.writer.disk.damage or self.uplink.damage

    def carry(self, old: "Session") -> None:
        """What `old` counted is counted on."""
        self.writer.refusals.take_over(old.writer.refusals)
        self._before = old.totals
        self.refused_contents = old.refused_contents + old.writer.refused_contents
        self.uplink.predecessor = old.publisher

    def followed_by(self, new: "Session") -> None:
        """Those who wait for events that were written here are told; `new` has the others."""
        self._end(
            f"recording went on as {new.publisher}, and the event is drained from its spool by whoever comes to it:"
            " look at `relight spool list`",
            settled_only=True,
        )

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
        drained = self._written(written, deadline) and self.uplink.drained(self._spooled.value, deadline)
        self.uplink.leave()
        self.uplink.stop(max(CLOSING_S, deadline - time.monotonic()))
        # Now every acknowledgement stands in the writer's queue; it ends once they are written.
        if self.writer.stop(max(CLOSING_S, deadline - time.monotonic())):
            self._slot.close()
        self._end("the recorder is closed: `relight status` shows what waits in its spool")
        return drained

    def _written(self, written: "Future[None]", deadline: float) -> bool:
        """Waits for the writer, which nobody else watches over now."""
        while True:
            if not self.writer.alive:
                self.writer.revive()
            try:
                written.result(min(WATCH_S, max(0.0, deadline - time.monotonic())))
            except TimeoutError:
                if time.monotonic() >= deadline:
                    return False
            else:
                return True

    @property
    def totals(self) -> "Totals":
        """Since the recorder was opened, under whichever identity."""
        writer, before = self.writer, self._before
        return Totals(
            recorded_events=before.recorded_events + writer.recorded_events,
            refused_events=before.refused_events + writer.refusals.count,
            evicted_unsealed=before.evicted_unsealed + writer.disk.evicted_unsealed,
            restarts=before.restarts + self.uplink.restarts,
        )

    def abandon(self) -> None:
        """In a fork()ed child: none of the threads came along, and the spool is the parent's.

        Nothing is closed here: SQLite's files and the loop's descriptors are shared with the parent ("How to corrupt
        an SQLite database file", section 2.7).
        """
        self._lock = threading.Lock()
        # Futures have locks, which another thread may have held: those who wait here run into their own timeouts.
        self._over = "the event was recorded in the process that this one was forked from: wait for it there"

    def health(self) -> RecorderHealth:
        writer, totals = self.writer, self.totals
        upkeep = self.uplink.upkeep
        return RecorderHealth(
            publisher=self.publisher,
            recorded_events=totals.recorded_events,
            refused_events=totals.refused_events,
            exposed_events=max(0, self._spooled.value - self._acked.value) + self.room.waiting_events,
            exposed_bytes=self.room.exposed_bytes,
            failure=writer.stuck or writer.disk.failure or self.uplink.failure,
            refused_contents=self.refused_contents + writer.refused_contents,
            evicted_unsealed=totals.evicted_unsealed,
            restarts=totals.restarts,
            spool_fault=self.spool_fault,
            alarm=upkeep.alarm if upkeep is not None else None,
        )

    def reach(self, receipt: Receipt, ack: Ack) -> "Future[None]":
        """A future of `Receipt.reached`; ends with the session at the latest."""
        future: Future[None] = Future()
        with self._lock:
            over = self._over
            if over is None:
                self._reaching[future] = receipt
        settled = receipt.refused is not None or (receipt.pseq is not None and ack is Ack.SPOOLED)
        if over is not None and not settled:
            complete(future, RecorderError(f"event {receipt.id} cannot be followed: {over}"))
            return future
        future.add_done_callback(self._reached)
        receipt.when_settled(lambda: self._reach_settled(receipt, ack, future))
        return future

    def _reached(self, future: "Future[None]") -> None:
        with self._lock:
            self._reaching.pop(future, None)

    def _end(self, why: str, *, settled_only: bool = False) -> None:
        with self._lock:
            self._over = why
            reaching = list(self._reaching.items())
        for future, receipt in reaching:
            if not settled_only or (receipt.pseq is not None and receipt.acknowledger is self):
                complete(future, RecorderError(why))

    def _reach_settled(self, receipt: Receipt, ack: Ack, future: "Future[None]") -> None:
        holder = receipt.acknowledger
        if holder is not None and holder is not self and receipt.pseq is not None:  # recording went on there meanwhile
            holder.reach(receipt, ack).add_done_callback(lambda done: _pass_on(done, future))
        elif receipt.pseq is None:
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
        running.add_done_callback(lambda done: self._reach_told(done, receipt, ack, future))
        future.add_done_callback(lambda waited: running.cancel() if waited.cancelled() else None)

    def _reach_told(self, done: "Future[None]", receipt: Receipt, ack: Ack, future: "Future[None]") -> None:
        if not done.cancelled() and isinstance(done.exception(), Restarted):
            self._reach_acked(receipt, ack, future)
        else:
            _pass_on(done, future)

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


def _pass_on(done: "Future[None]", to: "Future[None]") -> None:
    if done.cancelled():
        complete(to, RecorderError("the recorder was closed meanwhile"))
    elif (error := done.exception()) is None:
        complete(to)
    else:
        complete(to, error if isinstance(error, Exception) else RecorderError(repr(error)))
