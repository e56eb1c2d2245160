"""Evicts from a recorder's spool what is safe elsewhere, and compares what others hold of it with what it wrote."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from relight.engine.clock import Clock
from relight.engine.errors import RecorderError
from relight.engine.log.watermarks import Answer, ProjectedWatermarks
from relight.engine.recorder.writer import Writer
from relight.engine.spool.slots import Slot

EVICT_EVERY_S = 5.0
EVICT_EVENTS = 5_000

T = TypeVar("T")

log = logging.getLogger(__name__)


class Upkeep:
    """Of one slot."""

    def __init__(self, watermarks: ProjectedWatermarks, slot: Slot, writer: Writer, *, clock: Clock) -> None:
        self._watermarks = watermarks
        self._slot = slot
        self._writer = writer
        self._clock = clock
        self._archived = False
        self.alarm: str | None = None
        """An archive or the tables hold another event under one of our numbers."""
        self.forked = False
        """Another process writes under our identity."""

    async def evict(self, retention_s: float) -> None:
        """For ever: what is sealed in an archive leaves the spool; while there is none, what was projected long ago."""
        while True:
            await asyncio.sleep(min(EVICT_EVERY_S, retention_s))
            if (answer := await self._watermarks.standing(self._slot.publisher)) is not None:
                try:
                    await self._evict(answer, retention_s)
                except RecorderError as error:
                    log.warning("spool cannot be evicted: %s", error, extra={"action": "evict_failed"})

    async def _evict(self, answer: Answer, retention_s: float) -> None:
        now_ms = self._clock.now_us() // 1_000
        before_ms = now_ms - round(retention_s * 1_000)
        if self._slot.spool.durable:  # what is in memory alone begins anew each time
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
            self._writer.disk.safe_pseq = max(self._writer.disk.safe_pseq, up_to)
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


def _other(pseq: int, sha256: str, highest: int, ours: str | None) -> str | None:
    """What is wrong with what another holds as our event `pseq`."""
    if pseq > highest:
        return f"holds number {pseq}, and we wrote no more than {highest},"
    if ours is not None and ours != sha256:
        return f"holds another event as number {pseq}"
    return None
