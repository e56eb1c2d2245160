"""The one thread that writes a spool: numbers, chains and commits events in groups, one fsync a group."""

import logging
import threading
from collections.abc import Callable
from functools import partial

from relight.engine.clock import Clock
from relight.engine.errors import SpoolUnusable
from relight.engine.recorder.committing import RETRY_S, Committer, Replaced
from relight.engine.recorder.encoding import Encoder
from relight.engine.recorder.gaps import Refusals
from relight.engine.recorder.inbox import Inbox
from relight.engine.recorder.items import Deferral, Finish, Group, Item, Stop, Taken
from relight.engine.recorder.making import Maker
from relight.engine.recorder.receipts import Receipt, Watermark
from relight.engine.recorder.room import Room
from relight.engine.spool.slots import Slot
from relight.engine.spool.spool import Spool
from relight.events.base import Event
from relight.events.recorder import RecorderClosed

CLOSED = "the recorder is closed"
INVALID = "what is no valid event"
UNMADE = "the thread that made its events did not come back"

log = logging.getLogger(__name__)


def _nothing() -> None:
    """A job."""


class Writer:
    """Takes items from any thread, writes them in order; only its own thread touches the spool for writing.

    `disk.beats` counts on as long as that thread works; `revive` puts another in its place.
    """

    def __init__(
        self,
        slot: Slot,
        *,
        region: str,
        tenant: str,
        clock: Clock,
        room: Room,
        spooled: Watermark,
        woken: Callable[[], None],
        max_bytes: int,
    ) -> None:
        self._slot = slot
        self._room = room
        self._spooled = spooled
        self._woken = woken
        self._max_bytes = max_bytes
        self._encoder = Encoder(slot.publisher, region, clock)
        self._maker = Maker(clock, tenant)
        self._pseq, self._prev = slot.spool.head()
        self._inbox = Inbox()
        self.defer = self._inbox.defer
        """Takes a fact that the thread comes to by itself, soon; `look` afterwards where it has `ended`."""
        self._in_hand: Group | None = None
        self._replacing = threading.Lock()
        self._finished = False
        self.ended = False
        """The thread has had its last look at what was put."""
        self._generation = 0
        self._thread = self._new_thread()
        self.announces = True
        """Whether `recorder.closed` is written at the end."""
        self.leaving = False
        """It ends without giving up what is not written: a successor will."""
        self.rest: Callable[[Item], None] | None = None
        """Who takes what is still put after that."""
        self.refusals = Refusals(slot.publisher, clock)
        self.recorded_events = 0
        self.refused_contents = 0
        """Of facts; those of callers are counted where they call."""
        self.disk = Committer(slot, room, max_bytes)
        self.stuck: str | None = None
        """What the watchdog found, and could not mend."""

    def start(self) -> None:
        self._thread.start()

    def put(self, item: Item) -> None:
        self._inbox.put(item)
        if self.ended:  # after the thread's own last look, nobody else would
            self.sweep()

    def look(self, *, at_once: bool) -> None:
        """After a fact was deferred: to be written `at_once`, or that nobody will come to by itself any more."""
        if at_once:
            self._inbox.hurry()
        if self.ended:
            self.sweep()

    def finish(self, done: Callable[[], None]) -> None:
        """Writes what was taken and `recorder.closed` after it, then calls back; takes no event any more."""
        self._inbox.put(Finish())
        self.put(done)

    def stop(self, timeout_s: float) -> bool:
        """Writes what was taken, then ends; False when that took too long: then it gives up what it cannot write."""
        if not self.alive:
            self.revive()
        if self._thread.is_alive():
            self._inbox.put(Stop())
            self._thread.join(timeout_s)
            self.disk.giving_up.set()
            self._thread.join(2 * RETRY_S)
        return not self._thread.is_alive()

    def leave(self, timeout_s: float) -> bool:
        """Ends, and keeps what is not written for `unwritten`; False when its thread does not come back in time."""
        self.leaving = True
        self.disk.giving_up.set()
        self._inbox.put(_nothing)  # wakes it
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self.ended = not self._thread.is_alive()
        return self.ended

    def unwritten(self) -> Group:
        """After `leave`: what was in hand; a commit that reported an error may have been written all the same."""
        group, self._in_hand = self._in_hand or Group(), None
        if group.unmade is not None:  # whoever was making its events died of it
            self._give_up_fact(group.unmade, UNMADE)
        try:
            if group.pairs and self.disk.is_written([event for _, event in group.pairs]):
                self._settle(group)
        except SpoolUnusable:
            pass  # not even that can be read: what is in doubt is recorded again, under its own id
        if group.pairs and not group.written:
            group.events = [taken for taken, _ in group.pairs]
        elif group.written:
            group.events, group.contents, group.copies = [], [], []
        return group

    @property
    def last_pseq(self) -> int:
        """Of what is written."""
        return self._pseq

    @property
    def alive(self) -> bool:
        return self.ended or self._thread.is_alive()

    def revive(self) -> bool:
        """A new thread in place of one that died or hangs; False while that one is in the middle of a transaction.

        The old one writes no more: before it commits it finds itself replaced, or it has committed before.
        """
        with self._replacing:
            self._generation += 1
        if self._thread.is_alive():
            spool = Spool(self._slot.spool.path, max_bytes=self._max_bytes) if self._slot.spool.durable else None
            if not (spool or self._slot.spool).barrier():
                if spool is not None:
                    spool.close()
                return False
            if spool is not None:  # its own: the old thread may still be inside the other
                self._slot.spool = spool
        if self._in_hand is not None:
            self._in_hand.doubtful = True
        self._thread = self._new_thread()
        self._thread.start()
        return True

    def waiting_ids(self, limit: int) -> tuple[list[str], int]:
        """Of events that were taken and are not on disk, at most so many; and how many more there are. Any thread's."""
        group = self._in_hand
        items: list[Item] = [] if group is None or group.written else list(group.events)
        items += self._inbox.first(limit)
        ids = [item.receipt.id for item in items if isinstance(item, Taken)]
        unmade = max(0, self._room.expected_events - self._room.made_events)
        return ids[:limit], max(0, len(ids) - limit) + unmade

    def refuse(self, receipt: Receipt, cause: str) -> None:
        """Counts an event that cannot be taken; the count is recorded as `recorder.gap`."""
        self.refusals.add(cause)
        receipt.settle(refused=cause)

    def own(self, event: Event) -> Taken:
        """An event of the recorder's own, about itself; nobody waits for it."""
        return self._encoder.own(event)

    def sweep(self) -> None:
        """What was put after the end is refused, or goes to the successor."""
        if self.leaving and self.rest is None:
            return
        group = Group()
        while (item := self._inbox.next()) is not None:
            if self.rest is not None:
                self.rest(item)
            else:
                group.add(item)
            if group.unmade is not None:
                self._give_up_fact(group.unmade, CLOSED)
                group.unmade = None
        self._give_up(group.events, CLOSED)

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._run, args=(self._generation,), name="relight-writer", daemon=True)

    def _run(self, generation: int) -> None:
        ends: Finish | Stop | None = None
        while not isinstance(ends, Stop):
            try:
                group = self._in_hand or Group()
                self._fill(group, generation)
                self._write(group, generation)
            except Replaced:
                return
            except Exception as error:  # this thread must outlive whatever one group brings
                log.exception("events cannot be written", extra={"action": "events_lost"})
                if not group.written:
                    self._give_up(group.events, repr(error))
            if self.leaving:
                return
            self._run_jobs(group.jobs)
            self._run_jobs([self.disk.cut_wal])
            if self._generation != generation:
                return
            ends, self._in_hand = group.ends, None
            self.disk.beats += 1
        self.ended = True
        self.sweep()

    def _fill(self, group: Group, generation: int) -> None:
        """With what there is, once there is something; a group that another thread had in hand stays as it is."""
        if self._in_hand is group:
            with self._replacing:
                unmade, group.unmade = group.unmade, None
            if unmade is not None:  # it would hang again
                self._give_up_fact(unmade, UNMADE)
            return
        self._in_hand = group
        self._inbox.wait()
        while not (group.full or self.leaving):
            with self._replacing:
                self._still_ours(generation)
                if (item := self._inbox.next()) is None:
                    return
                group.add(item)
            if group.unmade is not None:
                self._make(group, group.unmade, generation)

    def _make(self, group: Group, deferral: Deferral, generation: int) -> None:
        """Puts the events of a fact into the group, all or none of them. Raises `Replaced`."""
        if self._finished:
            group.unmade = None
            self._give_up_fact(deferral, CLOSED)
            return
        making = self._maker.made(deferral)
        self.disk.beats += 1
        with self._replacing:
            self._still_ours(generation)
            group.unmade = None
            self._room.expected(deferral[3], [taken.counted_bytes for taken in making.events])
            for content in making.contents:
                if cause := self._room.take(len(content.body), events=0):
                    self.refused_contents += 1
                    log.warning(
                        "content %s is not kept: %s", content.sha256, cause, extra={"action": "content_refused"}
                    )
                else:
                    group.add(content)
            for taken in making.events:
                group.add(taken)
        self.refusals.add(INVALID, making.refused)

    def _still_ours(self, generation: int) -> None:
        if self._generation != generation:
            raise Replaced

    def _write(self, group: Group, generation: int) -> None:
        if group.pairs is None:
            self._number(group)
        assert group.pairs is not None
        if not (group.pairs or group.contents or group.acks or group.copies):
            return
        if not group.written and not self.disk.commit(group, partial(self._still_ours, generation)):
            if not self.leaving:
                self._give_up([taken for taken, _ in group.pairs], self.disk.failure or CLOSED)
            return
        self._settle(group)
        if group.events or group.contents:
            self._woken()

    def _number(self, group: Group) -> None:
        if self._finished:
            self._give_up(group.events, CLOSED)
            group.events = []
        elif gap := self.refusals.due(self._room, at_once=group.ends is not None):
            group.events.insert(0, self.own(gap))
        pairs, refused = self._encoder.numbered(group.events, self._pseq, self._prev)
        for taken, cause in refused:
            self._give_up([taken], cause)
        if group.ends is not None and not self._finished and not self.leaving:
            self._finished = True
            if self.announces:
                pseq, prev = (pairs[-1][1].pseq, pairs[-1][1].sha256) if pairs else (self._pseq, self._prev)
                pairs += self._encoder.numbered([self.own(self._closed(len(pairs)))], pseq, prev)[0]
        group.events = [taken for taken, _ in pairs]
        group.pairs = pairs

    def _settle(self, group: Group) -> None:
        """The group is on disk: whoever waits is told, each once, whatever happens to this thread meanwhile."""
        pairs = group.pairs or []
        if pairs and not group.written:
            _, last = pairs[-1]
            self._pseq, self._prev = last.pseq, last.sha256
            self.recorded_events += len(pairs)
            self._room.wrote([(taken.counted_bytes, len(event.body)) for taken, event in pairs])
        group.written = True
        while pairs:
            taken, event = pairs.pop()
            taken.receipt.settle(pseq=event.pseq)
        self._spooled.advance(self._pseq)

    def _closed(self, more_events: int) -> RecorderClosed:
        return RecorderClosed(
            publisher=self._slot.publisher,
            recorded_events=self.recorded_events + more_events,
            refused_events=self.refusals.count,
        )

    def _run_jobs(self, jobs: list[Callable[[], None]]) -> None:
        while jobs:
            job = jobs.pop(0)
            try:
                job()
            except Exception as error:  # what it does for the spool's upkeep is done again later
                log.warning("spool's upkeep failed: %r", error, extra={"action": "spool_job_failed"})

    def _give_up(self, events: list[Taken], cause: str) -> None:
        if not events:
            return
        log.error("%d events not recorded: %s", len(events), cause, extra={"action": "events_lost"})
        self._room.gave_up([taken.counted_bytes for taken in events if taken.counted_bytes])
        for taken in events:
            self.refuse(taken.receipt, cause)

    def _give_up_fact(self, deferral: Deferral, cause: str) -> None:
        events = deferral[3]
        log.error("%d events not recorded: %s", events, cause, extra={"action": "events_lost"})
        self._room.expected(events)
        self.refusals.add(cause, events)
