"""What a recorder does beside draining its own spool: evicts what is safe elsewhere, drains what others left behind."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TypeVar

from nats.aio.client import Client

from relight.engine.clock import Clock
from relight.engine.errors import RecorderError, SpoolUnusable
from relight.engine.log.drainer import Drainer
from relight.engine.log.orphans import next_orphan, put_aside_orphan, salvage_all
from relight.engine.log.receipts import Watermark
from relight.engine.log.slots import Slot
from relight.engine.log.spool import Acked, Spooled, SpooledContent
from relight.engine.log.watermarks import Answer, ProjectedWatermarks
from relight.engine.log.writer import Writer

EVICT_EVERY_S = 5.0
EVICT_EVENTS = 5_000
ORPHANS_EVERY_S = 60.0
DOUBT_S = 10.0
"""How long it is asked what of a dead process's events the tables have; then they are published: twice does no harm."""
ASK_AGAIN_S = 0.5
REMEMBERED_MS = 90_000
"""Within it the stream's duplicate window (2 minutes) knows what it has."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class Upkeep:
    """Of one slot, with one NATS client."""

    def __init__(self, client: Client, slot: Slot, writer: Writer, *, clock: Clock) -> None:
        self.watermarks = ProjectedWatermarks(client)
        self._client = client
        self._slot = slot
        self._writer = writer
        self._clock = clock
        self._archived = False
        self._not_asked_before = 0.0
        self.alarm: str | None = None
        """An archive or the tables hold another event under one of our numbers."""
        self.forked = False
        """Another process writes under our identity."""

    async def evict(self, retention_s: float) -> None:
        """For ever: what is sealed in an archive leaves the spool; while there is none, what was projected long ago."""
        while True:
            await asyncio.sleep(min(EVICT_EVERY_S, retention_s))
            if (answer := await self.watermarks.standing(self._slot.publisher)) is not None:
                try:
                    await self._evict(answer, retention_s)
                except RecorderError as error:
                    log.warning("spool cannot be evicted: %s", error, extra={"action": "evict_failed"})

    async def _evict(self, answer: Answer, retention_s: float) -> None:
        now_ms = self._clock.now_us() // 1_000
        before_ms = now_ms - round(retention_s * 1_000)
        await self.written(lambda: self._compare(answer))
        if self.alarm is not None:
            return
        self._archived = self._archived or bool(answer.archives)
        up_to, sealed_seq = answer.pseq, None
        if self._archived:
            # An answer of a release before tells of none: what an archive has to hold first is not to go then.
            archives = answer.archives or ()
            up_to = max((archive.pseq for archive in archives), default=0)
            sealed_seq = max((archive.last_seq for archive in archives), default=0)
            self._writer.safe_pseq = max(self._writer.safe_pseq, up_to)
        evict = lambda: self._slot.spool.evict(  # noqa: E731
            up_to_pseq=up_to,
            acked_before_ms=now_ms + 1 if self._archived else before_ms,
            limit=EVICT_EVENTS,
            copies_before_ms=before_ms,
            copies_up_to_seq=sealed_seq,
        )
        while up_to and await self.written(evict) == EVICT_EVENTS:
            pass

    def _compare(self, answer: Answer) -> None:
        """In the writer's thread: what others hold of us has to be what we wrote; a row that is gone says nothing."""
        spool, publisher = self._slot.spool, self._slot.publisher
        highest = spool.head()[0]
        alarm = None
        for archive in answer.archives or ():
            if why := _other(archive.pseq, archive.sha256, highest, spool.sha256_at(archive.pseq)):
                alarm = f"archive {archive.archive} {why} of {publisher}: a fork, or an alteration"
        self.forked = False
        if answer.head is not None:
            pseq, sha256 = answer.head
            if why := _other(pseq, sha256, highest, spool.sha256_at(pseq)):
                self.forked = True
                alarm = alarm or f"the stream {why} of {publisher}: another process writes under its identity"
        if alarm is not None and alarm != self.alarm:
            log.error("%s. Nothing is evicted from the spool", alarm, extra={"action": "fork_noticed"})
        self.alarm = alarm

    async def written(self, job: Callable[[], T]) -> T:
        """Has the writer's thread run it."""
        done: Future[T] = Future()

        def run() -> None:
            try:
                result = job()
            except Exception as error:
                done.set_exception(error)
            else:
                done.set_result(result)

        self._writer.put(run)
        return await asyncio.shield(asyncio.wrap_future(done))

    async def known(self, publisher: str, events: Sequence[Spooled]) -> frozenset[int]:
        """Which of them the tables have; none where nobody answers in time.

        Recent ones are not asked for: the stream itself knows their ids.
        """
        now = asyncio.get_running_loop().time()
        if events[0].recorded_ms > self._clock.now_us() // 1_000 - REMEMBERED_MS or now < self._not_asked_before:
            return frozenset()
        asked = [event.pseq for event in events]
        while (there := await self.watermarks.known(publisher, asked)) is None:
            if asyncio.get_running_loop().time() > now + DOUBT_S:
                self._not_asked_before = now + ORPHANS_EVERY_S
                return frozenset()
            await asyncio.sleep(ASK_AGAIN_S)
        return there

    async def drain_orphans(self, folder: Path | None) -> None:
        """For ever: spools that processes left behind when they died, and what could be read of damaged ones."""
        while True:
            if folder is not None:
                try:
                    await drain_left(self, folder)
                except Exception as error:  # others' spools must not keep this one from being drained
                    exiting = isinstance(error, RuntimeError)  # no thread can be begun any more
                    level = logging.INFO if exiting else logging.WARNING
                    log.log(level, "left spools cannot be drained: %r", error, extra={"action": "orphans_failed"})
            await asyncio.sleep(ORPHANS_EVERY_S)

    async def drain(self, slot: Slot, *, advanced: Callable[[int], None] = lambda events: None) -> bool:
        """One spool of a dead process, whose identity is not written to; whether all of it was taken.

        What could not be noted of acknowledgements is, at least, not sent again by us.
        """
        unnoted: list[Acked] = []

        def on_ack(acked: Acked, events: Sequence[Spooled]) -> None:
            advanced(len(events))
            unnoted.append(acked)
            try:
                slot.spool.commit([], acks=unnoted)
                unnoted.clear()
            except SpoolUnusable as error:
                log.warning("acknowledgements cannot be noted: %s", error, extra={"action": "ack_unnoted"})

        async def on_content(contents: Sequence[SpooledContent]) -> None:
            slot.spool.content_stored([(content.tenant, content.sha256) for content in contents])

        drainer = Drainer(
            self._client,
            slot.spool,
            acked=Watermark(slot.spool.acked_pseq()),
            on_ack=on_ack,
            on_content=on_content,
            clock=self._clock,
            doubtful_pseq=slot.spool.head()[0],
            known=partial(self.known, slot.publisher),
        )
        await drainer.run(until_empty=True)
        if drainer.damage is not None:
            slot.spool.close()
            put_aside_orphan(slot.spool.path, drainer.damage)
            return False
        log.info("drained the spool of %s", slot.publisher, extra={"action": "orphan_drained"})
        return not unnoted


async def drain_left(
    upkeep: Upkeep,
    folder: Path,
    *,
    advanced: Callable[[int], None] = lambda events: None,
) -> None:
    """Salvages what was put aside and drains every spool that no live process holds, once."""
    seen: set[Path] = set()
    while True:
        await in_thread(salvage_all, folder)
        slot = await in_thread(next_orphan, folder, frozenset(seen), release=_close)
        if slot is None:
            return
        seen.add(slot.spool.path)
        try:
            await upkeep.drain(slot, advanced=advanced)
        finally:
            slot.close()


def _close(slot: Slot | None) -> None:
    if slot is not None:
        slot.close()


async def in_thread(
    work: Callable[..., T], *arguments: object, release: Callable[[T], None] = lambda result: None
) -> T:
    """Disks may be slow, and the loop has others to serve. Who is cancelled meanwhile still has the result released."""
    working = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        working.add_done_callback(lambda done: release(done.result()) if _has_result(done) else None)
        raise


def _has_result(done: "asyncio.Future[T]") -> bool:
    return not done.cancelled() and done.exception() is None


def _other(pseq: int, sha256: str, highest: int, ours: str | None) -> str | None:
    """What is wrong with what another holds as our event `pseq`."""
    if pseq > highest:
        return f"holds number {pseq}, and we wrote no more than {highest},"
    if ours is not None and ours != sha256:
        return f"holds another event as number {pseq}"
    return None
