"""A recorder's side that talks to NATS: a loop in a thread of its own, which outlives whatever the servers do."""

import asyncio
import concurrent.futures.thread
import encodings.idna
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, TypeVar

from nats.aio.client import Client
from nats.js import JetStreamContext

from relight.engine.clock import Clock
from relight.engine.errors import RecorderError, SpoolUnusable, Unreachable
from relight.engine.log.control import ControlLog
from relight.engine.log.topology import REQUEST_TIMEOUT_S, connect, ensure_stream
from relight.engine.proving.asking import Attestations
from relight.engine.proving.models import Attestation
from relight.engine.proving.monitors import Monitors
from relight.engine.proving.prober import Prober
from relight.engine.recorder.adoption import Adopter
from relight.engine.recorder.announcing import Announcer, place_of
from relight.engine.recorder.answering_spools import answer_of_spools
from relight.engine.recorder.drainer import TRANSIENT, Drainer
from relight.engine.recorder.healing import Holding, Mender
from relight.engine.recorder.left_spools import tell_of_spools
from relight.engine.recorder.loop_thread import LoopThread
from relight.engine.recorder.options import RecorderOptions
from relight.engine.recorder.receipts import Watermark, complete
from relight.engine.recorder.room import Room
from relight.engine.recorder.upkeep import Upkeep
from relight.engine.recorder.writer import Writer
from relight.engine.spool.held import Held
from relight.engine.spool.slots import Slot
from relight.engine.spool.spool import Acked, Spool, Spooled, SpooledContent

IMPORTED_BEFORE_FORKS = (concurrent.futures.thread, encodings.idna)
"""What asyncio and sockets import when they first need it. A fork in the middle of that would leave the child a module
that is locked for ever, and locks of which it was not told."""
RETRY_S = 0.5
LEAVE_S = 0.5
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
        room: Room,
        clock: Clock,
    ) -> None:
        self._options = options
        self._slot = slot
        self._writer = writer
        self._acked = acked
        self._room = room
        self._clock = clock
        self._thread = LoopThread("relight-uplink", self._talk)
        self._connected: Future[None] = Future()
        self._client: Client | None = None
        self._drainer: Drainer | None = None
        self._attestations: Attestations | None = None
        self._control: ControlLog | None = None
        self._failure: str | None = "not connected to NATS yet"
        self._adopter: Adopter | None = None
        self.upkeep: Upkeep | None = None
        self.predecessor: str | None = None
        """The identity that this process recorded under before."""
        self._announcer: Announcer | None = None
        self.damage: SpoolUnusable | None = None
        """What the drainer found in the spool, which only another file in its place would mend."""
        self.restarts = 0
        """How often all in the loop was begun anew, for something that no server's being away explains."""

    @property
    def failure(self) -> str | None:
        """What it is waiting for now."""
        return self._failure or (self._drainer.failure if self._drainer else None)

    @property
    def alive(self) -> bool:
        return self._thread.alive

    @property
    def missed_beats(self) -> int:
        return self._thread.missed_beats

    def beat(self) -> None:
        """Asks the loop for a sign of life."""
        self._thread.beat()

    def revive(self) -> None:
        """Another loop in place of one that died or hangs; what that one had sent is not known, and asked about."""
        if self._drainer is not None:
            self._drainer.retired = True
        if self._client is not None:
            _shut(self._client)
        self._connected, self._client, self._drainer, self.upkeep = Future(), None, None, None
        self._failure = "the uplink was restarted"
        self._thread.revive()

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

    def leave(self) -> None:
        """Tells the fleet how far this identity's events came, if that takes no time."""
        if self._announcer is not None and self._failure is None:
            with suppress(RecorderError, TimeoutError, CancelledError):
                self._thread.run(self._announcer.leave()).result(LEAVE_S)

    def stop(self, timeout_s: float) -> None:
        """Ends the loop, and whatever runs in it. Idempotent."""
        self._thread.stop(timeout_s)

    def wake(self) -> None:
        """There is something new in the spool."""
        if (drainer := self._drainer) is not None:
            self._thread.call(drainer.wake)

    def in_loop(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """Runs a coroutine in the loop, in the caller's context. Raises `RecorderError` when the loop has ended."""
        return self._thread.run(coroutine)

    async def client(self, timeout_s: float) -> Client:
        """The client, once NATS was reached. Raises `Unreachable`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._until_connected()
        except TimeoutError:
            raise Unreachable(f"NATS was not reached within {timeout_s:g} s: {self.failure}") from None
        assert self._client is not None
        return self._client

    async def _until_connected(self) -> None:
        """With a client that was closed nobody can work: another one takes its place as soon as NATS can be reached."""
        while (client := self._client) is None or client.is_closed:
            if client is None:
                await asyncio.shield(asyncio.wrap_future(self._connected))
            else:
                await asyncio.sleep(RETRY_S)

    async def with_control(self, work: Callable[[ControlLog], Awaitable[T]], timeout_s: float) -> T:
        await self.client(timeout_s)
        assert self._control is not None
        return await work(self._control)

    async def with_jetstream(self, work: Callable[[JetStreamContext], Awaitable[T]], timeout_s: float) -> T:
        return await work((await self.client(timeout_s)).jetstream(timeout=REQUEST_TIMEOUT_S))

    async def attest(self) -> Attestation:
        """What is proven now; while an answer may still come, that is waited for."""
        await self._until_connected()
        assert self._attestations is not None
        return await self._attestations.settled()

    async def projected(self, publisher: str, pseq: int) -> None:
        """Returns once the publisher's event is in the tables. Raises `DeadLettered`."""
        await self._until_connected()
        assert self._adopter is not None
        await self._adopter.watermarks.reached(publisher, pseq)

    async def _talk(self) -> None:
        """For ever: a client that was closed (by a protocol error, say, or credentials withdrawn) is made anew."""
        while True:
            try:
                await self._converse()
            except Exception as error:  # a daemon's edge: recording goes on meanwhile, and health says why
                failure = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
                if not isinstance(failure, (*TRANSIENT, Unreachable)) or isinstance(failure, Ended):
                    self.restarts += 1
                if str(failure) != self._failure:
                    log.warning("recorder cannot work with NATS: %r", failure, extra={"action": "uplink_retry"})
                self._failure = str(failure) or type(failure).__name__
            if self.damage is not None:
                return
            await asyncio.sleep(RETRY_S)

    async def _converse(self) -> None:
        options = self._options
        client = await connect(options.nats_url, name=f"relight recorder {self._slot.publisher}")
        try:
            await ensure_stream(client.jetstream(timeout=REQUEST_TIMEOUT_S))
            reader = self._slot.spool.reader()
            try:
                adopter, upkeep = self._equip(client)
                drainer = self._drainer = Drainer(
                    client,
                    reader,
                    acked=self._acked,
                    on_ack=self._on_ack,
                    on_content=self._on_content,
                    clock=self._clock,
                )
                announcing = self._announcing(client, reader, adopter)
                self._failure = None
                complete(self._connected)
                await _first_to_end(
                    drainer.run(),
                    *announcing,
                    upkeep.evict(options.spool_retention_s),
                    adopter.drain_orphans(options.spools),
                    tell_of_spools(client, options.spools),
                    self._mender(client, reader).run(),
                    _until_stuck(drainer),
                    _until_closed(client),
                )
                if drainer.damage is not None:
                    self.damage = drainer.damage
                    raise drainer.damage
            finally:
                if reader is not self._slot.spool:
                    reader.close()
        finally:
            if self._client is client:  # not in a loop that another one has replaced
                self._connected, self._client = Future(), None
            await client.close()

    def _equip(self, client: Client) -> tuple[Adopter, Upkeep]:
        options = self._options
        self._client = client
        source = Monitors(client, options.nats_monitor_urls) if options.nats_monitor_urls else None
        fallback = None if source is None else Prober(client, source, ttl_s=options.proof_ttl_s, settle_s=0)
        self._attestations = Attestations(client, ttl_s=options.proof_ttl_s, fallback=fallback)
        self._adopter = adopter = Adopter(client, self._clock)
        self.upkeep = Upkeep(adopter.watermarks, self._slot, self._writer, clock=self._clock)
        self._control = ControlLog(
            client,
            region=options.region,
            publisher=self._slot.publisher,
            clock=self._clock,
            on_append=self._writer.put,
        )
        return adopter, self.upkeep

    def _announcing(self, client: Client, reader: Spool, adopter: Adopter) -> list[Coroutine[Any, Any, None]]:
        """Nothing where it belongs to no fleet."""
        options = self._options
        if options.announce_s is None or options.publisher is not None:
            return []
        place = place_of(options.spools)
        announcer = self._announcer = Announcer(
            client,
            reader,
            self._writer,
            region=options.region,
            publisher=self._slot.publisher,
            place=place,
            acked=self._acked,
            clock=self._clock,
            every_s=options.announce_s,
            predecessor=self.predecessor,
        )
        adopter.on_drained = announcer.drained
        return [announcer.run(), answer_of_spools(client, options.spools, place, options.region)]

    def _mender(self, client: Client, reader: Spool) -> Mender:
        upkeep = self.upkeep
        assert upkeep is not None

        async def write(job: Callable[[Held], None]) -> None:
            await upkeep.written(lambda: job(Held(self._slot.spool)))

        writer = self._writer
        return Mender(
            client,
            Holding(self._slot.publisher, Held(reader), write),
            spools=self._options.spools,
            record=(lambda event: writer.put(writer.own(event))) if writer.announces else None,
            clock=self._clock,
        )

    def _on_ack(self, acked: Acked, events: Sequence[Spooled]) -> None:
        if self._announcer is not None:
            self._announcer.on_ack(acked)
        self._writer.put(acked)
        self._room.release([len(event.body) for event in events], events=True)

    async def _on_content(self, contents: Sequence[SpooledContent]) -> None:
        keys = [(content.tenant, content.sha256) for content in contents]
        assert self.upkeep is not None
        await self.upkeep.written(lambda: self._slot.spool.content_stored(keys))
        self._room.release([len(content.body) for content in contents], events=False)


async def _until_stuck(drainer: Drainer) -> None:
    """Ends when a step of it takes longer than any may: something was awaited that never comes."""
    beats, since = drainer.beats, asyncio.get_running_loop().time()
    while True:
        await asyncio.sleep(1)
        now = asyncio.get_running_loop().time()
        if drainer.beats != beats:
            beats, since = drainer.beats, now
        elif now - since > drainer.patience_s:
            raise Ended(f"draining did not go on for {now - since:.0f} s: it is begun anew")


async def _first_to_end(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Runs all of them until one ends, in whatever way: none is meant to. Raises what it raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task.cancelled():  # by a library: a TaskGroup would go on without it
                raise Ended(f"{task.get_coro()} was cancelled by none of ours: all is begun anew")
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _shut(client: Client) -> None:
    """The connection of a client whose loop hangs: what that one sends when it wakes goes nowhere."""
    with suppress(Exception):  # whatever state it is in
        transport = client._transport
        transport._io_writer.transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]


class Ended(RecorderError):
    """Something that runs for ever did not."""


async def _until_closed(client: Client) -> None:
    while not client.is_closed:  # noqa: ASYNC110  # nats-py tells of it only in a callback given when connecting
        await asyncio.sleep(RETRY_S)
    raise Ended("the connection to NATS was closed by an error that reconnecting does not mend")
