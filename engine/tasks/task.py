"""A task in the hands of its owner: its payload, keys for its steps, and whether it is still the owner's."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, TypeVar

import orjson
from pydantic import JsonValue

from relight.engine.errors import TaskRefused
from relight.engine.recorder.receipts import Receipt
from relight.engine.recorder.recorder import Recorder
from relight.engine.tasks.rulings import Owned, TaskLog
from relight.engine.tasks.sessions.schema import Migrate, StateT
from relight.engine.tasks.sessions.session import Session
from relight.events.decisions import DecisionCheckpointed
from relight.events.tasks import TaskReassigned, TaskState
from relight.events.values import Content

STEP = "task_step"
"""Type of the checkpoint that says that a step was done; the decision is the task."""

T = TypeVar("T")


class Task:
    """What a worker's function is given; use it there, in the loop that it runs in.

    `epoch` is the fencing token: after the task went to another owner, whatever is appended under it is refused with
    `TaskFenced`. What happens outside happens at least once: give `key(step)` to whoever can tell repeats.
    """

    def __init__(self, recorder: Recorder, log: TaskLog, owned: Owned, payload: bytes | None) -> None:
        self._recorder = recorder
        self._log = log
        self._owned = owned
        self._claim = owned.tail
        self._lock = asyncio.Lock()
        self.id = owned.task
        self.tenant = owned.tenant
        self.epoch = owned.epoch
        self.payload = payload
        """Its bytes; None where it was submitted without."""
        self.done: set[str] = set()
        """Steps that this owner did."""

    @property
    def state(self) -> TaskState:
        """As of the last ruling that this owner appended or read."""
        return self._owned.state

    @property
    def queue(self) -> str:
        return self.state.queue

    @property
    def attempt(self) -> int:
        """This is so many-th, counted from 1."""
        return self.state.attempt

    @property
    def owner(self) -> str:
        return self._owned.who.owner

    @property
    def submitted_at(self) -> datetime:
        return self.state.submitted_at

    @property
    def taken_over(self) -> TaskReassigned | None:
        """How it was taken over from a lost owner; None where this owner is the first, or it was given back."""
        event = self._claim.event
        return event.data if event is not None and isinstance(event.data, TaskReassigned) else None

    @property
    def owned(self) -> Owned:
        """For whoever appends on behalf of the owner."""
        return self._owned

    def json(self) -> JsonValue:
        """The payload as JSON. Raises `TaskRefused`."""
        try:
            read: JsonValue = orjson.loads(self.payload or b"null")
        except ValueError:
            raise TaskRefused(f"the payload of task {self.id} is not JSON: read `payload`") from None
        return read

    def key(self, step: str) -> str:
        """An idempotency key of this step: the same under every epoch, and no other task's."""
        return hashlib.sha256(f"{self.tenant}\0{self.id}\0{step}".encode()).hexdigest()

    async def check(self) -> None:
        """Asks the stream's leader whether the task is still this owner's. Raises `TaskFenced`."""
        async with self._lock:
            self._owned = await self._in_loop(self._log.check(self._owned))

    @asynccontextmanager
    async def effect(self, step: str) -> AsyncIterator[str]:
        """Around what a step does outside: the epoch is checked before, and that it was done is recorded after.

        Gives the step's idempotency key. Raises `TaskFenced`.
        """
        await self.check()
        yield self.key(step)
        self.did(step)

    def did(self, step: str) -> Receipt:
        """Records that the step was done, by this owner under this epoch: so those that were done twice are known."""
        self.done.add(step)
        done: dict[str, JsonValue] = {"step": step, "epoch": self.epoch, "key": self.key(step)}
        return self._recorder.record(DecisionCheckpointed(decision=self.id, checkpoint_type=STEP, state_snapshot=done))

    async def checkpoint(
        self,
        step: int,
        snapshot: Content | None,
        *,
        previous: Content | None = None,
        after: Collection[Content | None] | None = None,
    ) -> Owned:
        """The task is as far as `step`; `snapshot` is in the content store already. Raises `TaskFenced`.

        `previous` and `after`: see `TaskLog.checkpoint`.
        """
        async with self._lock:
            checkpoint = self._log.checkpoint(self._owned, step, snapshot, previous=previous, after=after)
            self._owned = await self._in_loop(checkpoint)
            return self._owned

    async def keep(self, body: bytes) -> Content:
        """Bytes in the content store of the task's tenant; durable once this returns."""
        return await self._in_loop(self._log.keep(self.tenant, body))

    def session(
        self,
        model: type[StateT],
        *,
        version: int = 1,
        migrate: Mapping[int, Migrate] | None = None,
        initial: StateT | None = None,
        older: bool = False,
    ) -> Session[StateT]:
        """What is known of the task, kept at checkpoints: see `Session`."""
        return Session(self, self._recorder, model, version=version, migrate=migrate, initial=initial, older=older)

    async def latest(self) -> Owned:
        """The task as it is now, for its last ruling: nothing of the owner's is under way."""
        async with self._lock:
            return self._owned

    async def _in_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        result: T = await asyncio.wrap_future(self._recorder.in_loop(coroutine))
        return result
