"""One attempt at a task: its function runs as the task's owner, and how it ended is ruled, once."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, TypeVar

import orjson

from relight.engine import scope
from relight.engine.errors import ContentError, RelightError, TaskFenced, TaskGivenUp
from relight.engine.log.content import fetch_content
from relight.engine.log.control import Tail
from relight.engine.log.reader import TRANSIENT
from relight.engine.recorder.recorder import Recorder
from relight.engine.tasks.jobs import Job, Result
from relight.engine.tasks.rulings import Owned, TaskLog
from relight.engine.tasks.task import Task
from relight.events.tasks import (
    ReleaseCause,
    TaskMigrationCompleted,
    TaskMigrationFailed,
    TaskMigrationStarted,
    TaskReassigned,
)

RULE_AGAIN_S = 0.5
RULING_S = 60.0
"""How long an end that cannot be ruled is tried again: after it whoever watches over owners releases the task."""
MAX_REASON = 2_000

T = TypeVar("T")

log = logging.getLogger(__name__)


class Attempt:
    """Runs in the loop of the worker's functions; `fence` and `give_back` end it early."""

    def __init__(self, recorder: Recorder, tasks: TaskLog, job: Job, owned: Owned) -> None:
        self._recorder = recorder
        self._tasks = tasks
        self._job = job
        self._owned = owned
        self._running: asyncio.Task[Result] | None = None
        self._fenced = False
        self._given_back: str | None = None
        self.task: Task | None = None

    @property
    def epoch(self) -> int:
        return self._owned.epoch

    def fence(self) -> None:
        """Another has the task, or will have: what runs is cancelled, and rules nothing."""
        self._fenced = True
        if self._running is not None:
            self._running.cancel()

    def give_back(self, reason: str) -> None:
        """What runs is cancelled, and the task waits for another owner."""
        self._given_back = self._given_back or reason
        if self._running is not None:
            self._running.cancel()

    async def run(self) -> None:
        owned, event = self._owned, self._owned.tail.event
        assert event is not None
        with scope.entered(
            tenant=owned.tenant,
            agent=self._job.agent or owned.who.owner,
            task=owned.task,
            correlation=event.correlationid or event.id,
            causation=event.id,
            traceparent=event.traceparent,
        ):
            moved = event.data if isinstance(event.data, TaskReassigned) else None
            began = self._recorder.clock.now()
            if moved is not None:
                self._recorder.record(TaskMigrationStarted.model_validate(_migration(moved, began)))
            try:
                payload = await self._payload()
            except RelightError as error:
                if moved is not None:
                    ended = {**_migration(moved, began), "completed_at": self._recorder.clock.now()}
                    self._recorder.record(TaskMigrationFailed.model_validate(ended))
                await self._failed(None, error)
                return
            if moved is not None:
                ended = {**_migration(moved, began), "completed_at": self._recorder.clock.now()}
                self._recorder.record(TaskMigrationCompleted.model_validate(ended))
            task = self.task = Task(self._recorder, self._tasks, owned, payload)
            await self._work(task)

    async def _work(self, task: Task) -> None:
        if not self._fenced and self._given_back is None:
            running = self._running = asyncio.ensure_future(_called(self._job, task))
            try:
                await asyncio.wait([running])
            finally:
                running.cancel()
        await self._ended(task)

    async def _ended(self, task: Task) -> None:
        running = self._running
        error = None if running is None or running.cancelled() else running.exception()
        if self._fenced:
            log.info("task %s of %s is another's now", task.id, task.tenant, extra={"action": "task_fenced"})
        elif error is not None:
            await self._failed(task, error)
        elif running is not None and not running.cancelled():
            await self._completed(task, running.result())
        elif self._given_back is None:
            await self._failed(task, asyncio.CancelledError("it cancelled itself"))
        else:
            reason = self._given_back
            await self._rule(task, lambda now: self._tasks.release(now, ReleaseCause.GIVEN_BACK, reason))

    async def _completed(self, task: Task, result: Result) -> None:
        try:
            body = None if result is None else result if isinstance(result, bytes) else orjson.dumps(result)
        except TypeError as error:
            await self._failed(task, error)
            return

        async def complete(now: Owned) -> Tail:
            content = None if body is None else await self._tasks.keep(task.tenant, body)
            return await self._tasks.complete(now, content)

        await self._rule(task, complete)

    async def _failed(self, task: Task | None, error: BaseException) -> None:
        if isinstance(error, TaskFenced):
            log.info("%s", error, extra={"action": "task_fenced"})
            return
        reason = f"{type(error).__name__}: {error}"[:MAX_REASON].replace("\x00", "")
        log.info("task %s failed: %s", self._owned.task, reason, extra={"action": "task_failed"})
        job, tasks = self._job, self._tasks

        async def fail(now: Owned) -> Tail:
            if isinstance(error, TaskGivenUp):
                return await tasks.fail(now, reason)
            return await tasks.release(
                now, ReleaseCause.FAILED, reason, backoff_s=job.backoff_s, max_attempts=job.max_attempts
            )

        await self._rule(task, fail)

    async def _payload(self) -> bytes | None:
        payload = self._owned.state.payload
        if payload is None:
            return None

        async def fetch() -> bytes:
            tenant = self._owned.tenant
            return await self._recorder.with_jetstream(lambda js: fetch_content(js, tenant, payload))

        deadline = asyncio.get_running_loop().time() + RULING_S
        while True:
            try:
                return await self._in_loop(fetch())
            except ContentError:
                raise
            except (RelightError, *TRANSIENT):
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(RULE_AGAIN_S)

    async def _rule(self, task: Task | None, ruling: Callable[[Owned], Coroutine[Any, Any, Tail]]) -> None:
        """Once; for as long as nobody can be asked, again."""
        deadline = asyncio.get_running_loop().time() + RULING_S
        while not self._fenced:
            owned = self._owned if task is None else await task.latest()
            try:
                await self._in_loop(ruling(owned))
                return
            except TaskFenced as error:
                log.info("%s", error, extra={"action": "task_fenced"})
                return
            except (RelightError, *TRANSIENT) as error:
                if asyncio.get_running_loop().time() > deadline:
                    log.warning("task %s: %s", owned.task, error, extra={"action": "task_not_ended"})
                    return
            await asyncio.sleep(RULE_AGAIN_S)

    async def _in_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        result: T = await asyncio.wrap_future(self._recorder.in_loop(coroutine))
        return result


async def _called(job: Job, task: Task) -> Result:
    return await job.handler(task)


def _migration(moved: TaskReassigned, began: datetime) -> dict[str, object]:
    return {
        "task": moved.task,
        "from_region": moved.from_region,
        "to_region": moved.owner_region,
        "reason": moved.reason,
        "started_at": began,
    }
