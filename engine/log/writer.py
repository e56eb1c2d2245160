"""The one thread that writes a spool: numbers, chains and commits events in groups, one fsync a group."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from queue import Empty, SimpleQueue

from relight.engine.clock import Clock
from relight.engine.errors import SpoolUnusable
from relight.engine.log.chain import body_sha256
from relight.engine.log.receipts import Receipt, Watermark
from relight.engine.log.slots import Slot
from relight.engine.log.spool import Acked, ControlCopy, Spooled, SpooledContent
from relight.events.base import Event
from relight.events.envelope import PLATFORM, Head, encode
from relight.events.recorder import RecorderGap
from relight.events.subjects import observation_subject

GROUP_EVENTS = 2_000
GAP_EVERY_S = 1.0
RETRY_S = 0.25
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Taken:
    """An event on its way to the spool."""

    receipt: Receipt
    type: str
    version: int
    entity: str
    time_us: int
    tenant: str
    correlation: str | None
    causation: str | None
    traceparent: str | None
    data: bytes


class Stop:
    """The last thing in the queue."""


Item = Taken | SpooledContent | Acked | ControlCopy | Callable[[], None] | Stop


@dataclass(slots=True)
class Group:
    """What is written together."""

    events: list[Taken] = field(default_factory=list)
    contents: list[SpooledContent] = field(default_factory=list)
    acks: list[Acked] = field(default_factory=list)
    copies: list[ControlCopy] = field(default_factory=list)
    jobs: list[Callable[[], None]] = field(default_factory=list)
    stop: bool = False

    def add(self, item: Item) -> None:
        match item:
            case Taken():
                self.events.append(item)
            case Acked():
                self.acks.append(item)
            case SpooledContent():
                self.contents.append(item)
            case ControlCopy():
                self.copies.append(item)
            case Stop():
                self.stop = True
            case _:
                self.jobs.append(item)


class Writer:
    """Takes items from any thread, writes them in order; only its own thread touches the spool for writing."""

    def __init__(self, slot: Slot, *, region: str, clock: Clock, spooled: Watermark, woken: Callable[[], None]) -> None:
        self._slot = slot
        self._region = region
        self._source = f"relight://{region}/{slot.publisher}"
        self._clock = clock
        self._spooled = spooled
        self._woken = woken
        self._pseq, self._prev = slot.spool.head()
        self._queue: SimpleQueue[Item] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="relight-writer", daemon=True)
        self._gap_lock = threading.Lock()
        self._gap: RecorderGap | None = None
        self._gap_written_at = 0.0
        self.refused_events = 0
        self.recorded_events = 0
        self.exposed_bytes = slot.spool.exposure().bytes
        self.failure: SpoolUnusable | None = None

    @property
    def waiting_events(self) -> int:
        """Items taken and not yet on disk."""
        return self._queue.qsize()

    @property
    def head(self) -> tuple[int, str]:
        """Number and SHA-256 of the last event written."""
        return self._pseq, self._prev

    def start(self) -> None:
        self._thread.start()

    def put(self, item: Item) -> None:
        self._queue.put(item)

    def stop(self, timeout_s: float) -> bool:
        """Writes what was taken, then ends; False when that took too long."""
        if self._thread.is_alive():
            self._queue.put(Stop())
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def refuse(self, receipt: Receipt, cause: str) -> None:
        """Counts an event that cannot be taken; the count is recorded as `recorder.gap`, for which space is reserved."""
        now = self._clock.now()
        with self._gap_lock:
            self.refused_events += 1
            first, count = (self._gap.first_refused_at, self._gap.refused_events) if self._gap else (now, 0)
            self._gap = RecorderGap(
                publisher=self._slot.publisher,
                refused_events=count + 1,
                first_refused_at=first,
                last_refused_at=now,
                cause=cause,
            )
        receipt.settle(refused=cause)

    def _run(self) -> None:
        stopping = False
        while not stopping:
            group = self._next_group()
            stopping = group.stop
            self._add_gap(group, now=stopping)
            self._write(group, give_up=stopping)

    def _next_group(self) -> Group:
        group = Group()
        try:
            group.add(self._queue.get(timeout=GAP_EVERY_S))
            while len(group.events) < GROUP_EVENTS and not group.stop:
                group.add(self._queue.get_nowait())
        except Empty:
            pass
        return group

    def _add_gap(self, group: Group, *, now: bool) -> None:
        if self._gap is None or not (now or time.monotonic() - self._gap_written_at > GAP_EVERY_S):
            return
        with self._gap_lock:
            gap, self._gap = self._gap, None
        self._gap_written_at = time.monotonic()
        group.events.insert(0, self.taken(gap, Receipt(None, self._clock.next_id())))

    def taken(self, event: Event, receipt: Receipt) -> Taken:
        """An event of the recorder's own, about itself."""
        return Taken(
            receipt=receipt,
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

    def _write(self, group: Group, *, give_up: bool) -> None:
        spooled = self._encode(group.events)
        while True:
            try:
                if spooled or group.contents or group.acks or group.copies:
                    self._slot.spool.commit(spooled, group.contents, group.acks, group.copies)
                for job in group.jobs:
                    job()
            except SpoolUnusable as error:
                if self.failure is None:
                    log.error("spool cannot be written: %s", error, extra={"action": "spool_failed"})
                self.failure = error
                if give_up:
                    self._give_up(group.events, error)
                    return
                time.sleep(RETRY_S)
                group.jobs.clear()
                continue
            break
        self.failure = None
        if spooled:
            self._pseq, self._prev = spooled[-1].pseq, spooled[-1].sha256
            self.recorded_events += len(spooled)
            self.exposed_bytes += sum(len(event.body) for event in spooled)
            for taken, event in zip(group.events, spooled, strict=True):
                taken.receipt.settle(pseq=event.pseq)
            self._spooled.advance(self._pseq)
        if spooled or group.contents:
            self._woken()

    def _encode(self, events: list[Taken]) -> list[Spooled]:
        pseq, prev = self._pseq, self._prev
        spooled = []
        for taken in events:
            pseq += 1
            head = Head(
                id=taken.receipt.id,
                type=taken.type,
                version=taken.version,
                entity=taken.entity,
                time=_EPOCH + timedelta(microseconds=taken.time_us),
                tenant=taken.tenant,
                region=self._region,
                correlationid=taken.correlation,
                causationid=taken.causation,
                traceparent=taken.traceparent,
            )
            publisher = self._slot.publisher
            body = encode(head, taken.data, source=self._source, publisher=publisher, pseq=pseq, prev=prev, ruling=None)
            prev = body_sha256(body)
            subject = observation_subject(self._region, taken.type, taken.tenant)
            spooled.append(Spooled(pseq, head.id, subject, body, prev, taken.time_us // 1_000))
        return spooled


    def _give_up(self, events: list[Taken], error: SpoolUnusable) -> None:
        self.refused_events += len(events)
        log.error("%d events lost: %s", len(events), error, extra={"action": "events_lost"})
        for taken in events:
            taken.receipt.settle(refused=str(error))


def data_json(event: Event) -> bytes:
    """The event's data as it is published; absent values are left out."""
    return event.__pydantic_serializer__.to_json(event, exclude_none=True)

