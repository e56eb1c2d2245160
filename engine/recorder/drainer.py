"""Moves a spool's events to the stream: in order, in batches, for ever, and content before what refers to it."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from nats.aio.client import Client
from nats.errors import Error as NatsError

from relight.engine.clock import Clock
from relight.engine.errors import RecorderError, SpoolUnusable
from relight.engine.log.answers import answered
from relight.engine.log.content_store import ContentStore
from relight.engine.log.publishing import (
    MAX_BATCH_BYTES,
    MAX_BATCH_EVENTS,
    StreamRefused,
    publish_batch,
    publish_one,
)
from relight.engine.log.standing import FORGETS_S, standing
from relight.engine.log.topology import REQUEST_TIMEOUT_S
from relight.engine.recorder.receipts import Watermark
from relight.engine.spool.slots import UNUSABLE_FILE
from relight.engine.spool.spool import Acked, Spool, Spooled, SpooledContent

TRANSIENT = (NatsError, TimeoutError, OSError, RecorderError)
"""What a restart, an election, a full server or a failing disk brings: tried again for ever."""
RETRY_S = 0.05
RETRY_MAX_S = 1.0
IDLE_S = 1.0
LOOKS, LOOK_S = 3, 60.0
STEP_S = 30.0
"""More than any other step can take, since all requests are bounded: a step beyond it hangs."""
SLOWEST_BYTES_S = 50_000
SINGLY_EVENTS = 100

log = logging.getLogger(__name__)


class Drainer:
    """Of one spool, whose rows it only reads; what it learns goes back through the one writer.

    `on_content` returns once the rows of stored content are gone from the spool.
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
    ) -> None:
        self._client = client
        self._js = client.jetstream(timeout=5)
        self._contents = ContentStore(client)
        self._spool = spool
        self._acked = acked
        self._on_ack = on_ack
        self._on_content = on_content
        self._clock = clock
        self._woken = asyncio.Event()
        self._sent_at: float | None = None
        """Of time.monotonic: since when what was sent has no answer."""
        self._answered = not spool.durable
        """Or nobody else can have sent of this spool."""
        self._looks = 0
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
            try:
                self._begin_step()
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

    def _begin_step(self, *, more_s: float = 0) -> None:
        """One that may take `STEP_S` and so much more. Raises `RecorderError` where another drainer has taken over."""
        if self.retired:
            raise RecorderError("another drainer works in this one's place")
        self.patience_s = STEP_S + more_s
        self.beats += 1

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
        if self._unsure(events[0]) and (found := await self._stored_already(events)):
            self._acknowledge(events[: len(found)], found[-1])
            return
        self._begin_step()
        self._sent_at = self._sent_at or time.monotonic()
        if self.failure is not None:
            # What was sent may be stored, and a batch with a duplicate is refused whole: one alone shows what works.
            events = events[:1]
        elif len(events) > 1:
            try:
                self._acknowledge(events, await publish_batch(self._client, events))
                return
            except StreamRefused as error:
                log.info("batch refused, publishing singly: %s", error, extra={"action": "batch_refused"})
                events = events[:SINGLY_EVENTS]  # as a rule it is the first of them that the stream holds already
        await self._publish_singly(events)

    async def _publish_singly(self, events: Sequence[Spooled]) -> None:
        done, seq, began = 0, 0, time.monotonic()
        try:
            for event in events:
                self._begin_step()
                began = time.monotonic()
                seq = await publish_one(self._client, self._js, event)
                done += 1
        finally:
            if done:
                self._acknowledge(events[:done], seq)
            if 0 < done < len(events):
                self._sent_at = began

    def _unsure(self, first: Spooled) -> bool:
        """Whether it may have been stored so long ago that the stream does not know its id any more.

        By this drainer, whose answer was lost; or, before it has sent anything, by one of a process that is dead.
        """
        if self._sent_at is not None:
            return time.monotonic() - self._sent_at > FORGETS_S
        return not self._answered and self._clock.now_us() / 1e6 - first.recorded_ms / 1e3 > FORGETS_S

    async def _stored_already(self, events: Sequence[Spooled]) -> list[int]:
        """Where the first of them stand.

        A login that may not look is believed after a few tries, if it is answered otherwise: a repeated event does no
        harm, one that is kept back for ever would.
        """
        self._begin_step(more_s=LOOK_S)
        try:
            found = await answered(self._client, standing(self._js, events), within_s=LOOK_S)
        except TRANSIENT:
            await self._client.flush(timeout=round(REQUEST_TIMEOUT_S))  # of a lost connection it returns at once
            self._looks += self._client.is_connected
            if not self._client.is_connected or self._looks < LOOKS:
                raise
            found = []
        log.info("%d of %d events were stored already", len(found), len(events), extra={"action": "looked"})
        self._sent_at, self._answered, self._looks = None, True, 0
        return found

    def _acknowledge(self, events: Sequence[Spooled], seq: int) -> None:
        first, last = events[0].pseq, events[-1].pseq
        self._sent_at, self._answered = None, True
        self._acked.advance(last)
        self._on_ack(Acked(first, last, seq, self._clock.now_us() // 1_000), events)

    async def _store(self, contents: list[SpooledContent]) -> None:
        """What was erased meanwhile, here or elsewhere, is not stored: it leaves the spool like the others."""
        self._begin_step(more_s=sum(len(content.body) for content in contents) / SLOWEST_BYTES_S)
        await self._contents.put(contents)
        await self._on_content(contents)
