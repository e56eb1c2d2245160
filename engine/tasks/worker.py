"""Works on tasks: asks for them, claims them, runs functions on them, and stops at once what it has lost."""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from pydantic import JsonValue, ValidationError

from relight.engine.errors import RecorderError, RelightError, TaskFenced, Unreachable
from relight.engine.log.answers import answered
from relight.engine.log.reader import TRANSIENT
from relight.engine.policies.reassignment import LEASE_S, Claimant
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.heartbeats import WORKER, Heartbeats
from relight.engine.tasks.asking import WAIT_S, Asking, Offer, Offers, Release, fenced_subject, work_subject
from relight.engine.tasks.attempt import Attempt
from relight.engine.tasks.dispatcher import holds
from relight.engine.tasks.jobs import Job
from relight.engine.tasks.rulings import Owned, TaskLog
from relight.events.values import MAX_KEY_LENGTH

RETRY_S = 0.3
LOOK_EVERY_S = 0.5
DRAIN_S = 10.0
ENDING_S = 5.0
"""At the end, how long giving back what did not end by itself may take."""

Key = tuple[str, str]
T = TypeVar("T")

log = logging.getLogger(__name__)


class Worker:
    """Its functions run in the loop that it is used in; all else in the recorder's, so that one who keeps that loop
    busy is not taken for dead. Every start of a process is a worker of its own."""

    def __init__(
        self, recorder: Recorder, jobs: Sequence[Job], *, drain_s: float = DRAIN_S, lease_s: float = LEASE_S
    ) -> None:
        self._recorder = recorder
        self._jobs = tuple(jobs)
        self._drain_s = drain_s
        self._lease_s = lease_s
        self._region = recorder.options.region
        self._tasks = TaskLog(recorder)
        self.id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"[-MAX_KEY_LENGTH:]
        self._who = Claimant(self.id, self._region)
        self._held: dict[Key, int] = {}
        self._attempts: dict[Key, Attempt] = {}
        self._works: set[asyncio.Task[None]] = set()
        self._free = [job.concurrency for job in self._jobs]
        self._freed = asyncio.Event()
        self._heartbeats = Heartbeats(recorder, WORKER, self.id, self._said)
        self._stopping = False
        self.done = 0
        """Attempts that ended, however."""
        self.failure: str | None = None
        """Why it is given no tasks now."""

    @asynccontextmanager
    async def working(self) -> AsyncIterator["Worker"]:
        """Works until the `with` ends; then what runs may end by itself for a while, and the rest is given back."""
        loop = asyncio.get_running_loop()
        asking = [loop.create_task(self._ask(n), name=f"tasks of {job.queue}") for n, job in enumerate(self._jobs)]
        asking.append(loop.create_task(self._watch(), name="own tasks"))
        beside: list[Future[None]] = [
            self._recorder.in_loop(self._heartbeats.run()),
            self._recorder.in_loop(self._listen(loop)),
        ]
        try:
            yield self
        finally:
            self._stopping = True
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            await self._drain()
            with suppress(RecorderError):
                await self._in_loop(self._heartbeats.leave())
            for future in beside:
                future.cancel()

    async def run(self) -> None:
        """`working` until it is cancelled."""
        async with self.working():
            await asyncio.Event().wait()

    @property
    def held(self) -> Mapping[Key, int]:
        """Tenant and task, and the epoch, of what it holds now."""
        return dict(self._held)

    def _said(self) -> Mapping[str, JsonValue]:
        return {"queues": [job.queue for job in self._jobs], "held": holds(dict(self._held))}  # type: ignore[dict-item]

    async def _ask(self, n: int) -> None:
        job = self._jobs[n]
        while True:
            while self._free[n] == 0:
                self._freed.clear()
                await self._freed.wait()
            try:
                offers = await self._in_loop(self._asked(job, self._free[n]))
                self.failure = None
            except (RelightError, *TRANSIENT) as error:
                self.failure, offers = str(error) or type(error).__name__, ()
                await asyncio.sleep(RETRY_S)
            for offer in offers[: self._free[n]]:
                self._free[n] -= 1
                work = asyncio.create_task(self._work(n, offer), name=f"task {offer.task}")
                self._works.add(work)
                work.add_done_callback(self._works.discard)

    async def _asked(self, job: Job, slots: int) -> tuple[Offer, ...]:
        """What a dispatcher offers; nothing where nothing is due for a while."""
        client = await self._recorder.client()
        asking = Asking(worker=self.id, region=self._region, queue=job.queue, slots=slots, tenant=job.tenant)
        try:
            request = client.request(work_subject(job.queue), asking.model_dump_json().encode(), timeout=WAIT_S + 1)
            reply = await answered(client, request, within_s=WAIT_S + 2)
            return Offers.model_validate_json(reply.data).offers
        except NoRespondersError:
            raise Unreachable(
                f"nobody gives out tasks of queue {job.queue}: is a `relight up` or `relight serve` running?"
            ) from None
        except (TimeoutError, ValidationError):
            return ()

    async def _work(self, n: int, offer: Offer) -> None:
        key, job = (offer.tenant, offer.task), self._jobs[n]
        try:
            if key in self._held or (owned := await self._in_loop(self._claim(key))) is None:
                return
            try:
                attempt = self._attempts[key] = Attempt(self._recorder, self._tasks, job, owned)
                if self._stopping:
                    attempt.give_back("its worker stops")
                await attempt.run()
            finally:
                self._attempts.pop(key, None)
                self._held.pop(key, None)
                self.done += 1
        except (RelightError, *TRANSIENT) as error:
            log.info("task %s: %s", offer.task, error, extra={"action": "task_not_worked"})
        except Exception:  # an edge: the others go on, and the dispatcher sees that it is not held
            log.exception("task %s cannot be worked on", offer.task, extra={"action": "task_not_worked"})
        finally:
            self._free[n] += 1
            self._freed.set()

    async def _claim(self, key: Key) -> Owned | None:
        owned = None

        def taking(epoch: int) -> None:
            self._held[key] = epoch

        try:
            owned = await self._tasks.claim(*key, self._who, taking=taking)
        finally:
            if owned is None:
                self._held.pop(key, None)
        return owned

    async def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """In the recorder's loop, for ever: hears at once of what was taken from it."""

        async def on_release(message: Msg) -> None:
            with suppress(ValidationError, RuntimeError):
                release = Release.model_validate_json(message.data)
                loop.call_soon_threadsafe(self._fence, (release.tenant, release.task), release.epoch)

        while True:
            with suppress(RelightError, *TRANSIENT):
                client = await self._recorder.client()
                await client.subscribe(fenced_subject(self.id), cb=on_release)
                while not client.is_closed:  # noqa: ASYNC110  # nats-py tells of it only in a callback
                    await asyncio.sleep(LOOK_EVERY_S)
            await asyncio.sleep(RETRY_S)

    def _fence(self, key: Key, epoch: int) -> None:
        attempt = self._attempts.get(key)
        if attempt is not None and attempt.epoch == epoch:
            attempt.fence()

    async def _watch(self) -> None:
        """Asks about what it holds: now and then, and at once after this process stood still or lost its connection."""
        loop = asyncio.get_running_loop()
        woke_s = checked_s = loop.time()
        reconnects = None
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now_s, before = loop.time(), reconnects
            with suppress(RelightError, TimeoutError):
                reconnects = await self._in_loop(self._reconnects())
            stood_still = now_s - woke_s > min(self._lease_s / 3, LOOK_EVERY_S + 2)
            woke_s = loop.time()
            if stood_still or reconnects != before or woke_s - checked_s > self._lease_s:
                checked_s = woke_s
                await asyncio.gather(*(self._check(attempt) for attempt in list(self._attempts.values())))

    async def _reconnects(self) -> int:
        return (await self._recorder.client()).stats["reconnects"]

    async def _check(self, attempt: Attempt) -> None:
        if attempt.task is None:
            return
        try:
            await attempt.task.check()
        except TaskFenced as error:
            log.info("%s", error, extra={"action": "task_fenced"})
            attempt.fence()
        except (RelightError, *TRANSIENT) as error:
            log.info("task %s is not checked: %s", attempt.task.id, error, extra={"action": "task_not_checked"})

    async def _drain(self) -> None:
        if self._works:
            await asyncio.wait(self._works, timeout=self._drain_s)
        for attempt in list(self._attempts.values()):
            attempt.give_back("its worker stops")
        if self._works:
            await asyncio.wait(self._works, timeout=ENDING_S)
        for work in self._works:
            work.cancel()

    async def _in_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        result: T = await asyncio.wrap_future(self._recorder.in_loop(coroutine))
        return result
