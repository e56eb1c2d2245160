"""Moves a spool's events to the stream: in order, in batches, for ever, and content before what refers to it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from relight.engine.clock import Clock
from relight.engine.errors import RecorderError, SpoolUnusable
from relight.engine.log.publishing import (
    MAX_BATCH_BYTES,
    MAX_BATCH_EVENTS,
    StreamRefused,
    publish_batch,
    publish_one,
)
from relight.engine.log.receipts import Watermark
from relight.engine.log.slots import UNUSABLE_FILE
from relight.engine.log.spool import Acked, Spool, Spooled, SpooledContent
from relight.engine.log.topology import content_bucket

TRANSIENT = (NatsError, TimeoutError, OSError, RecorderError)
"""What a restart, an election, a full server or a failing disk brings: tried again for ever."""
RETRY_S = 0.05
RETRY_MAX_S = 1.0
IDLE_S = 1.0
STEP_S = 30.0
"""More than any request can take, since all are bounded: a step beyond it hangs."""
SLOWEST_BYTES_S = 50_000

log = logging.getLogger(__name__)


class Drainer:
    """Of one spool, whose rows it only reads; what it learns goes back through the one writer.

    `on_content` returns once the rows of stored content are gone from the spool. Of events up to `doubtful_pseq` it is
    not known whether the stream has them (a process died before it could note that): `known` tells which it has.
    """

    def __init__(
        self,
        client: Client,
        spool: Spool,
        *,
        acked: Watermark,
        on_ack: Callable[[Acked, Sequence[Spooled]], None],
        on_content: Callable[[Sequence[SpooledContent]], Awaitable[None]],
        clock: Clock,
        doubtful_pseq: int = 0,
        known: Callable[[Sequence[Spooled]], Awaitable[frozenset[int]]] | None = None,
    ) -> None:
        self._client = client
        self._js = client.jetstream(timeout=5)
        self._spool = spool
        self._acked = acked
        self._on_ack = on_ack
        self._on_content = on_content
        self._clock = clock
        self._doubtful_pseq = doubtful_pseq
        self._known = known
        self._woken = asyncio.Event()
        self.failure: str | None = None
        self.damage: SpoolUnusable | None = None
        """What ended `run`: something in the spool is not as it was written."""
        self.beats = 0
        """Counts on as long as it works, or waits for work."""
        self.patience_s = STEP_S
        """How long the step under way may take."""
        self.retired = False
        """Another one drains in its place: it publishes no more."""

    def wake(self) -> None:
        """There is something new; called in the drainer's loop."""
        self._woken.set()

    async def run(self, *, until_empty: bool = False) -> None:
        """Drains until cancelled, or until nothing is left; whatever fails is tried again, with growing pauses.

        Returns when the spool is damaged, too: `damage` says how.
        """
        pause_s = RETRY_S
        while True:
            self._woken.clear()
            self.patience_s = STEP_S
            self.beats += 1
            try:
                found = await self._drain_some()
            except Exception as error:  # a daemon's edge: an event that cannot be sent now must not end the sending
                if isinstance(error, SpoolUnusable) and error.fault in UNUSABLE_FILE:
                    self.damage, self.failure = error, str(error)
                    return
                self._note(error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RETRY_MAX_S)
                continue
            self.failure, pause_s = None, RETRY_S
            if found:
                continue
            if until_empty:
                return
            await self._idle()

    async def _drain_some(self) -> bool:
        events = self._spool.pending(self._acked.value, MAX_BATCH_EVENTS, MAX_BATCH_BYTES)
        # Read after the events: what they refer to was committed before them, or with them.
        if contents := self._spool.contents(MAX_BATCH_BYTES):
            await self._store(contents)
        elif events:
            await self._publish(events)
        return bool(contents or events)

    async def _idle(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(IDLE_S):
                await self._woken.wait()

    def _note(self, error: Exception) -> None:
        if not isinstance(error, TRANSIENT):
            log.error("draining failed", exc_info=error, extra={"action": "drain_failed"})
        elif self.failure is None:
            log.warning("stream unavailable, retrying: %r", error, extra={"action": "drain_retry"})
        self.failure = str(error) or type(error).__name__

    async def _publish(self, events: list[Spooled]) -> None:
        if self._known is not None and events[0].pseq <= self._doubtful_pseq:
            there = await self._known(events)
            missing = [event for event in events if event.pseq not in there]
            if len(missing) < len(events):
                for event in missing:
                    await self._publish_one(event)
                self._acknowledge(events, 0)
                return
        if self.retired:
            raise RecorderError("another drainer works in this one's place")
        if len(events) > 1 and self.failure is None:
            try:
                self._acknowledge(events, await publish_batch(self._client, events))
                return
            except StreamRefused as error:
                log.info("batch refused, publishing singly: %s", error, extra={"action": "batch_refused"})
        # After a failure the batch may or may not be stored, and a batch with a duplicate is refused whole.
        for event in events:
            self._acknowledge([event], await self._publish_one(event))

    async def _publish_one(self, event: Spooled) -> int:
        if self.retired:
            raise RecorderError("another drainer works in this one's place")
        self.beats += 1
        return await publish_one(self._client, self._js, event)

    def _acknowledge(self, events: Sequence[Spooled], seq: int) -> None:
        first, last = events[0].pseq, events[-1].pseq
        self._acked.advance(last)
        self._on_ack(Acked(first, last, seq, self._clock.now_us() // 1_000), events)

    async def _store(self, contents: list[SpooledContent]) -> None:
        bucket = await content_bucket(self._js)
        for content in contents:
            self.patience_s = STEP_S + len(content.body) / SLOWEST_BYTES_S
            self.beats += 1
            name = f"{content.tenant}/{content.sha256}"
            try:
                await bucket.get_info(name)
            except NotFoundError:
                await bucket.put(name, content.body)
        await self._on_content(contents)
