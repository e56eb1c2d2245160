"""Moves a spool's events to the stream: in order, in batches, for ever, and content before what refers to it."""

import asyncio
import logging
from collections.abc import Callable, Sequence

import stamina
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError, ObjectNotFoundError

from relight.engine.clock import Clock
from relight.engine.errors import RecorderError
from relight.engine.log.publishing import (
    MAX_BATCH_BYTES,
    MAX_BATCH_EVENTS,
    StreamRefused,
    publish_batch,
    publish_one,
)
from relight.engine.log.receipts import Watermark
from relight.engine.log.spool import Acked, Spool, Spooled, SpooledContent
from relight.engine.log.topology import content_bucket

TRANSIENT = (NatsError, TimeoutError, OSError, RecorderError)
"""What a restart, an election or a full server brings: tried again for ever."""
RETRY_MAX_S = 1.0
IDLE_S = 1.0

log = logging.getLogger(__name__)


class Drainer:
    """Of one spool, whose rows it only reads; what it learns goes back through the one writer."""

    def __init__(
        self,
        client: Client,
        spool: Spool,
        *,
        acked: Watermark,
        on_ack: Callable[[Acked, int], None],
        on_content: Callable[[Sequence[SpooledContent]], None],
        clock: Clock,
    ) -> None:
        self._client = client
        self._js = client.jetstream(timeout=5)
        self._spool = spool
        self._acked = acked
        self._on_ack = on_ack
        self._on_content = on_content
        self._clock = clock
        self._woken = asyncio.Event()
        self._stored_contents: set[tuple[str, str]] = set()
        self.failure: str | None = None

    def wake(self) -> None:
        """There is something new; called in the drainer's loop."""
        self._woken.set()

    async def run(self, *, until_empty: bool = False) -> None:
        """Drains until cancelled, or until nothing is left."""
        while True:
            self._woken.clear()
            events = self._spool.pending(self._acked.value, MAX_BATCH_EVENTS, MAX_BATCH_BYTES)
            # Read after the events: what they refer to was committed before them, or with them.
            contents = [c for c in self._spool.contents(100) if (c.tenant, c.sha256) not in self._stored_contents]
            if contents:
                await self._persistently(self._store, contents)
            elif events:
                await self._persistently(self._publish, events)
            elif until_empty:
                return
            else:
                await self._idle()

    async def _idle(self) -> None:
        try:
            await asyncio.wait_for(self._woken.wait(), IDLE_S)
        except TimeoutError:
            return

    async def _persistently(self, step: Callable[..., object], argument: object) -> None:
        async for attempt in stamina.retry_context(
            on=self._is_transient, attempts=None, timeout=None, wait_initial=0.05, wait_max=RETRY_MAX_S, wait_jitter=0.05
        ):
            with attempt:
                result = step(argument)
                if asyncio.iscoroutine(result):
                    await result
        self.failure = None

    def _is_transient(self, error: Exception) -> bool:
        if isinstance(error, TRANSIENT):
            if self.failure is None:
                log.warning("stream unavailable, retrying: %r", error, extra={"action": "drain_retry"})
            self.failure = str(error) or type(error).__name__
            return True
        return False

    async def _publish(self, events: list[Spooled]) -> None:
        if len(events) > 1 and self.failure is None:
            try:
                self._acknowledge(events, await publish_batch(self._client, events))
                return
            except StreamRefused as error:
                log.info("batch refused, publishing singly: %s", error, extra={"action": "batch_refused"})
        # After a failure the batch may or may not be stored, and a batch with a duplicate is refused whole.
        for event in events:
            if event.pseq > self._acked.value:
                self._acknowledge([event], await publish_one(self._client, self._js, event))

    def _acknowledge(self, events: Sequence[Spooled], seq: int) -> None:
        first, last = events[0].pseq, events[-1].pseq
        self._acked.advance(last)
        size = sum(len(event.body) for event in events)
        self._on_ack(Acked(first, last, seq, self._clock.now_us() // 1_000), size)

    async def _store(self, contents: list[SpooledContent]) -> None:
        bucket = await content_bucket(self._js)
        for content in contents:
            name = f"{content.tenant}/{content.sha256}"
            try:
                await bucket.get_info(name)
            except (ObjectNotFoundError, NotFoundError):
                await bucket.put(name, content.body)
            self._stored_contents.add((content.tenant, content.sha256))
        self._on_content(contents)
