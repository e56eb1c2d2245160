"""A recorder's side that talks to NATS: a loop in a thread of its own, which outlives whatever the servers do."""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from nats.aio.client import Client
from nats.js import JetStreamContext

from relight.engine.clock import Clock
from relight.engine.errors import RecorderError, Unreachable
from relight.engine.log.control import ControlLog
from relight.engine.log.drainer import Drainer
from relight.engine.log.left_spools import tell_of_spools
from relight.engine.log.options import RecorderOptions
from relight.engine.log.proof import Attestation, Prober
from relight.engine.log.receipts import Watermark, complete
from relight.engine.log.slots import Slot, orphans
from relight.engine.log.spool import Acked, SpooledContent
from relight.engine.log.topology import REQUEST_TIMEOUT_S, connect, ensure_stream
from relight.engine.log.watermarks import ProjectedWatermarks
from relight.engine.log.writer import Writer

EVICT_EVERY_S = 5.0
EVICT_EVENTS = 5_000
ORPHANS_EVERY_S = 60.0
RETRY_S = 0.5
UNREACHED_S = 1.0
"""At the end, how long a server that does not answer is still waited for."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class Uplink:
    """Drains one slot's spool, and lends its NATS client to whoever has a coroutine to run in its loop."""

    def __init__(
        self,
        options: RecorderOptions,
        slot: Slot,
        writer: Writer,
        *,
        acked: Watermark,
        release: Callable[[int], None],
        clock: Clock,
    ) -> None:
        self._options = options
        self._slot = slot
        self._writer = writer
        self._acked = acked
        self._release = release
        self._clock = clock
        self._loop = asyncio.new_event_loop()
        self._main = self._loop.create_task(self._talk())
        self._thread = threading.Thread(target=self._run, name="relight-uplink", daemon=True)
        self._connected: Future[None] = Future()
        self._client: Client | None = None
        self._drainer: Drainer | None = None
        self._prober: Prober | None = None
        self._watermarks: ProjectedWatermarks | None = None
        self._control: ControlLog | None = None
        self._failure: str | None = "not connected to NATS yet"

    @property
    def failure(self) -> str | None:
        """What it is waiting for now."""
        return self._failure or (self._drainer.failure if self._drainer else None)

    def start(self) -> None:
        self._thread.start()

    def drained(self, up_to_pseq: int, deadline: float) -> bool:
        """Waits until that number is acknowledged, not for long where nobody answers. `deadline`: of time.monotonic."""
        drained: Future[None] = Future()
        self._acked.when(up_to_pseq, drained)
        heard_at = time.monotonic()
        while not drained.done():
            now = time.monotonic()
            if self.failure is None:
                heard_at = now
            if now > deadline or now - heard_at > UNREACHED_S:
                return False
            try:
                drained.result(min(0.1, max(0.0, deadline - now)))
            except TimeoutError:
                continue
        return True

    def stop(self, timeout_s: float) -> None:
        """Ends the loop, and whatever runs in it. Idempotent."""
        self.call(self._main.cancel)
        self._thread.join(timeout_s)

    def call(self, callback: Callable[[], object]) -> bool:
        """Runs a function in the loop; False when the loop has ended."""
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            return False
        return True

    def wake(self) -> None:
        """There is something new in the spool."""
        if self._drainer is not None:
            self.call(self._drainer.wake)

    def in_loop(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """Runs a coroutine in the loop, in the caller's context. Raises `RecorderError` when the loop has ended."""
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise RecorderError("the recorder is closed: use it inside its `with`") from None

    async def client(self, timeout_s: float) -> Client:
        """The client, once NATS was reached. Raises `Unreachable`."""
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(asyncio.wrap_future(self._connected))
        except TimeoutError:
            raise Unreachable(f"NATS was not reached within {timeout_s:g} s: {self.failure}") from None
        assert self._client is not None
        return self._client

    async def with_control(self, work: Callable[[ControlLog], Awaitable[T]], timeout_s: float) -> T:
        await self.client(timeout_s)
        assert self._control is not None
        return await work(self._control)

    async def with_jetstream(self, work: Callable[[JetStreamContext], Awaitable[T]], timeout_s: float) -> T:
        return await work((await self.client(timeout_s)).jetstream(timeout=REQUEST_TIMEOUT_S))

    async def attest(self) -> Attestation:
        await asyncio.shield(asyncio.wrap_future(self._connected))
        assert self._prober is not None
        return await self._prober.attest()

    async def projected(self, publisher: str, pseq: int) -> None:
        """Returns once the publisher's event is in the tables. Raises `DeadLettered`."""
        await asyncio.shield(asyncio.wrap_future(self._connected))
        assert self._watermarks is not None
        await self._watermarks.reached(publisher, pseq)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._main)
        except asyncio.CancelledError:
            pass
        finally:
            if tasks := asyncio.all_tasks(self._loop):
                for task in tasks:
                    task.cancel()
                self._loop.run_until_complete(asyncio.wait(tasks, timeout=2))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    async def _talk(self) -> None:
        """For ever: a client that was closed (by a protocol error, say, or credentials withdrawn) is made anew."""
        while True:
            try:
                await self._converse()
            except Exception as error:  # a daemon's edge: recording goes on meanwhile, and health says why
                failure = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
                if str(failure) != self._failure:
                    log.warning("recorder cannot work with NATS: %r", failure, extra={"action": "uplink_retry"})
                self._failure = str(failure) or type(failure).__name__
            await asyncio.sleep(RETRY_S)

    async def _converse(self) -> None:
        options = self._options
        client = await connect(options.nats_url, name=f"relight recorder {self._slot.publisher}")
        try:
            await ensure_stream(client.jetstream(timeout=REQUEST_TIMEOUT_S))
            reader = self._slot.spool.reader()
            try:
                self._equip(client)
                drainer = self._drainer = Drainer(
                    client,
                    reader,
                    acked=self._acked,
                    on_ack=self._on_ack,
                    on_content=self._on_content,
                    clock=self._clock,
                )
                self._failure = None
                complete(self._connected)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(drainer.run())
                    tasks.create_task(self._evict())
                    tasks.create_task(self._drain_orphans(client))
                    tasks.create_task(tell_of_spools(client, self._options.spools))
                    tasks.create_task(_until_closed(client))
            finally:
                if reader is not self._slot.spool:
                    reader.close()
        finally:
            await client.close()

    def _equip(self, client: Client) -> None:
        options = self._options
        self._client = client
        self._prober = Prober(client, monitor_urls=options.nats_monitor_urls, ttl_s=options.proof_ttl_s)
        self._watermarks = ProjectedWatermarks(client)
        self._control = ControlLog(
            client,
            region=options.region,
            publisher=self._slot.publisher,
            clock=self._clock,
            on_append=self._writer.put,
        )

    def _on_ack(self, acked: Acked, size: int) -> None:
        self._writer.put(acked)
        self._release(size)

    async def _on_content(self, contents: Sequence[SpooledContent]) -> None:
        keys = [(content.tenant, content.sha256) for content in contents]
        await self._written(lambda: self._slot.spool.content_stored(keys))
        self._release(sum(len(content.body) for content in contents))

    async def _evict(self) -> None:
        """What is projected, and was acknowledged longer ago than the retention time, leaves the spool."""
        assert self._watermarks is not None
        spool, retention_s = self._slot.spool, self._options.spool_retention_s
        while True:
            await asyncio.sleep(min(EVICT_EVERY_S, retention_s))
            projected = await self._watermarks.ask(self._slot.publisher)
            before_ms = self._clock.now_us() // 1_000 - round(retention_s * 1_000)
            evicted = EVICT_EVENTS if projected else 0
            while evicted == EVICT_EVENTS:
                try:
                    evicted = await self._written(
                        lambda before_ms=before_ms, projected=projected: spool.evict(  # type: ignore[misc]
                            up_to_pseq=projected, acked_before_ms=before_ms, limit=EVICT_EVENTS
                        )
                    )
                except RecorderError as error:
                    log.warning("spool cannot be evicted: %s", error, extra={"action": "evict_failed"})
                    evicted = 0

    async def _written(self, job: Callable[[], T]) -> T:
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

    async def _drain_orphans(self, client: Client) -> None:
        """Drains spools that processes left behind when they died; their identity is not written to."""
        while self._options.spools is not None:
            for slot in orphans(self._options.spools):
                try:
                    await self._drain_orphan(client, slot)
                finally:
                    slot.close()
            await asyncio.sleep(ORPHANS_EVERY_S)

    async def _drain_orphan(self, client: Client, slot: Slot) -> None:
        def on_ack(acked: Acked, _size: int) -> None:
            slot.spool.commit([], acks=[acked])

        async def on_content(contents: Sequence[SpooledContent]) -> None:
            slot.spool.content_stored([(content.tenant, content.sha256) for content in contents])

        drainer = Drainer(
            client,
            slot.spool,
            acked=Watermark(slot.spool.acked_pseq()),
            on_ack=on_ack,
            on_content=on_content,
            clock=self._clock,
        )
        await drainer.run(until_empty=True)
        log.info("drained the spool of %s", slot.publisher, extra={"action": "orphan_drained"})


async def _until_closed(client: Client) -> None:
    while not client.is_closed:  # noqa: ASYNC110  # nats-py tells of it only in a callback given when connecting
        await asyncio.sleep(RETRY_S)
    raise Unreachable("the connection to NATS was closed by an error that reconnecting does not mend")
