"""The one thread that writes a spool: numbers, chains and commits events in groups, one fsync a group."""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from queue import Empty, SimpleQueue

from relight.engine.clock import Clock
from relight.engine.errors import SpoolUnusable
from relight.engine.log.chain import body_sha256
from relight.engine.log.gaps import Refusals
from relight.engine.log.items import Finish, Group, Item, Stop, Taken
from relight.engine.log.receipts import Receipt, Watermark
from relight.engine.log.room import Room
from relight.engine.log.slots import Slot
from relight.engine.log.spool import Spooled
from relight.events.base import Event
from relight.events.envelope import PLATFORM, Head, encode
from relight.events.recorder import RecorderClosed
from relight.events.subjects import observation_subject, source_of

IDLE_S = 0.5
RETRY_S = 0.25
CLOSED = "the recorder is closed"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

log = logging.getLogger(__name__)


class Writer:
    """Takes items from any thread, writes them in order; only its own thread touches the spool for writing."""

    def __init__(
        self, slot: Slot, *, region: str, clock: Clock, room: Room, spooled: Watermark, woken: Callable[[], None]
    ) -> None:
        self._slot = slot
        self._region = region
        self._source = source_of(region, slot.publisher)
        self._clock = clock
        self._room = room
        self._spooled = spooled
        self._woken = woken
        self._pseq, self._prev = slot.spool.head()
        self._queue: SimpleQueue[Item] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="relight-writer", daemon=True)
        self._giving_up = threading.Event()
        self._finished = self._ended = False
        self.announces = True
        """Whether `recorder.closed` is written at the end."""
        self.refusals = Refusals(slot.publisher, clock)
        self.recorded_events = 0
        self.failure: str | None = None

    def start(self) -> None:
        self._thread.start()

    def put(self, item: Item) -> None:
        self._queue.put(item)
        if self._ended:  # after the thread's own last look, nobody else would
            self._refuse_rest()

    def finish(self, done: Callable[[], None]) -> None:
        """Writes what was taken and `recorder.closed` after it, then calls back; takes no event any more."""
        self._queue.put(Finish())
        self.put(done)

    def stop(self, timeout_s: float) -> bool:
        """Writes what was taken, then ends; False when that took too long: then it gives up what it cannot write."""
        if self._thread.is_alive():
            self._queue.put(Stop())
            self._thread.join(timeout_s)
            self._giving_up.set()
            self._thread.join(2 * RETRY_S)
        return not self._thread.is_alive()

    def refuse(self, receipt: Receipt, cause: str) -> None:
        """Counts an event that cannot be taken; the count is recorded as `recorder.gap`."""
        self.refusals.add(cause)
        receipt.settle(refused=cause)

    def own(self, event: Event) -> Taken:
        """An event of the recorder's own, about itself; nobody waits for it."""
        return Taken(
            receipt=Receipt(None, self._clock.next_id()),
            type=event.TYPE,
            version=event.VERSION,
            entity=event.entity,
            time_us=self._clock.now_us(),
            tenant=PLATFORM,
            correlation=None,
            causation=None,
            traceparent=None,
            data=data_json(event),
        )

    def _run(self) -> None:
        ends: Finish | Stop | None = None
        while not isinstance(ends, Stop):
            group = self._next_group()
            ends = group.ends
            try:
                self._write(group)
            except Exception as error:  # this thread must outlive whatever one group brings
                log.exception("events cannot be written", extra={"action": "events_lost"})
                self._give_up(group.events, repr(error))
            self._run_jobs(group.jobs)
        self._ended = True
        self._refuse_rest()

    def _next_group(self) -> Group:
        group = Group()
        try:
            group.add(self._queue.get(timeout=IDLE_S))
            while not group.full:
                group.add(self._queue.get_nowait())
        except Empty:
            pass
        return group

    def _write(self, group: Group) -> None:
        if self._finished:
            self._give_up(group.events, CLOSED)
            group.events = []
        elif gap := self.refusals.due(self._room, at_once=group.ends is not None):
            group.events.insert(0, self.own(gap))
        pairs = self._encode(group.events)
        if group.ends is not None and not self._finished:
            self._finished = True
            if self.announces:
                pairs += self._encode([self.own(self._closed(len(pairs)))], after=pairs)
        spooled = [event for _, event in pairs]
        if not (spooled or group.contents or group.acks or group.copies):
            return
        if not self._commit(group, spooled):
            self._give_up([taken for taken, _ in pairs], self.failure or CLOSED)
            return
        self._written(pairs)
        if spooled or group.contents:
            self._woken()

    def _commit(self, group: Group, spooled: list[Spooled]) -> bool:
        """Again and again until it is written; False when told to give up."""
        spool = self._slot.spool
        while True:
            try:
                # A commit that reported an error may have been written all the same.
                if self.failure is None or not spooled or spool.head() != (spooled[-1].pseq, spooled[-1].sha256):
                    repeated = spool.commit(spooled, group.contents, group.acks, group.copies)
                    self._room.release(repeated)
            except SpoolUnusable as error:
                if self.failure is None:
                    log.error("spool cannot be written: %s", error, extra={"action": "spool_failed"})
                self.failure = str(error)
                if self._giving_up.wait(RETRY_S):
                    return False
            else:
                self.failure = None
                return True

    def _written(self, pairs: list[tuple[Taken, Spooled]]) -> None:
        if not pairs:
            return
        _, last = pairs[-1]
        self._pseq, self._prev = last.pseq, last.sha256
        self.recorded_events += len(pairs)
        users = sum(1 for taken, _ in pairs if taken.counted_bytes)
        self._room.wrote(users, sum(len(event.body) - taken.counted_bytes for taken, event in pairs))
        for taken, event in pairs:
            taken.receipt.settle(pseq=event.pseq)
        self._spooled.advance(self._pseq)

    def _encode(
        self, events: list[Taken], *, after: list[tuple[Taken, Spooled]] | None = None
    ) -> list[tuple[Taken, Spooled]]:
        pseq, prev = (after[-1][1].pseq, after[-1][1].sha256) if after else (self._pseq, self._prev)
        pairs: list[tuple[Taken, Spooled]] = []
        for taken in events:
            try:
                event = self._encoded(taken, pseq + 1, prev)
            except (ValueError, TypeError, OverflowError) as error:
                # `record` lets no such event through; should one come all the same, it takes no number.
                log.error("event cannot be encoded: %r", error, extra={"action": "event_refused"})
                self._give_up([taken], repr(error))
                continue
            pseq, prev = event.pseq, event.sha256
            pairs.append((taken, event))
        return pairs

    def _encoded(self, taken: Taken, pseq: int, prev: str) -> Spooled:
        # In the order of `Head`; by name it would take three times as long.
        head = Head(
            taken.receipt.id,
            taken.type,
            taken.version,
            taken.entity,
            _EPOCH + timedelta(0, 0, taken.time_us),
            taken.tenant,
            self._region,
            taken.correlation,
            taken.causation,
            taken.traceparent,
        )
        publisher = self._slot.publisher
        body = encode(head, taken.data, source=self._source, publisher=publisher, pseq=pseq, prev=prev, ruling=None)
        subject = observation_subject(self._region, taken.type, taken.tenant)
        return Spooled(pseq, head.id, subject, body, body_sha256(body), taken.time_us // 1_000)

    def _closed(self, more_events: int) -> RecorderClosed:
        return RecorderClosed(
            publisher=self._slot.publisher,
            recorded_events=self.recorded_events + more_events,
            refused_events=self.refusals.count,
        )

    def _run_jobs(self, jobs: list[Callable[[], None]]) -> None:
        for job in jobs:
            try:
                job()
            except Exception as error:  # what it does for the spool's upkeep is done again later
                log.warning("spool's upkeep failed: %r", error, extra={"action": "spool_job_failed"})

    def _give_up(self, events: list[Taken], cause: str) -> None:
        if not events:
            return
        log.error("%d events not recorded: %s", len(events), cause, extra={"action": "events_lost"})
        users = [taken for taken in events if taken.counted_bytes]
        self._room.wrote(len(users), -sum(taken.counted_bytes for taken in users))
        for taken in events:
            self.refuse(taken.receipt, cause)

    def _refuse_rest(self) -> None:
        group = Group()
        try:
            while True:
                group.add(self._queue.get_nowait())
        except Empty:
            self._give_up(group.events, CLOSED)


def data_json(event: Event) -> bytes:
    """The event's data as it is published; absent values are left out."""
    return event.__pydantic_serializer__.to_json(event, exclude_none=True)
