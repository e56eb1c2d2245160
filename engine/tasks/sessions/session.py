"""A task's session: its state after the last checkpoint, the steps that remain, and checkpoints on the way."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self

from relight.engine import scope
from relight.engine.errors import AckNotProven, SnapshotDamaged, TaskRefused
from relight.engine.recorder.receipts import Ack, Receipt
from relight.engine.recorder.recorder import Recorder
from relight.engine.tasks.sessions.envelope import Envelope, decoded
from relight.engine.tasks.sessions.plan import StepT, check_resumable, names_of
from relight.engine.tasks.sessions.reading import read_snapshot
from relight.engine.tasks.sessions.schema import Migrate, StateSchema, StateT
from relight.events.decisions import DecisionCheckpointed
from relight.events.intelligence import IntelligenceSnapshotTaken
from relight.events.values import Content

if TYPE_CHECKING:
    from relight.engine.tasks.task import Task

STEP_BEGUN = "task_step_begun"
"""Type of the checkpoint that says that a step was begun; the decision is the task."""
SESSION = "session"

log = logging.getLogger(__name__)


class Session(Generic[StateT]):
    """An async context manager, of one owner of a task; `state` is what the last checkpoint was given.

    Entering it asks the stream's leader whether the task is still the owner's, and raises `TaskFenced` where it is not;
    `SnapshotDamaged` where the last snapshot is not what was written: with `older` the one before it is used then.
    """

    def __init__(
        self,
        task: "Task",
        recorder: Recorder,
        model: type[StateT],
        *,
        version: int = 1,
        migrate: Mapping[int, Migrate] | None = None,
        initial: StateT | None = None,
        older: bool = False,
    ) -> None:
        """`initial`: the state of a session that begins, where the model's defaults do not do."""
        self._task = task
        self._recorder = recorder
        self._schema = StateSchema(model, version, migrate or {})
        self._initial = initial
        self._older = older
        self._state: StateT | None = None
        self._open = False
        self._lock = asyncio.Lock()
        self._on_stream: list[Content | None] = [None]
        """One of these is the snapshot of the task's last ruling; several while it is not known whether ours stands."""
        self._last: str | None = None
        self._under_way: tuple[int, str] | None = None
        """Number and name of the step that is worked on."""
        self.step = 0
        """How many steps are done, by the last checkpoint."""
        self.snapshot: Content | None = None
        """The last one that can be gone on from; None where there is none yet."""
        self.damaged: Content | None = None
        """The last snapshot, where it could not be used and the one before it is gone on from."""

    @property
    def state(self) -> StateT:
        if self._state is None:
            raise TaskRefused(f"the session of task {self._task.id} is used outside of its `async with`")
        return self._state

    async def __aenter__(self) -> Self:
        await self._task.check()
        known = self._task.state
        self._on_stream = [known.snapshot]
        if known.snapshot is None:
            self._state = self._initial or self._schema.new()
        else:
            try:
                await self._resume(known.snapshot)
            except SnapshotDamaged as error:
                if not self._older or known.previous is None:
                    raise
                log.warning("%s; the one before it is used", error, extra={"action": "older_snapshot"})
                self.damaged = known.snapshot
                await self._resume(known.previous)
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False

    def remaining(self, plan: Sequence[StepT]) -> AsyncIterator[StepT]:
        """The plan's steps after the last checkpoint, each recorded as begun, durably, before it is given.

        A step is done with the checkpoint that is made in it, or when the next one is asked for. Raises `TaskRefused`
        where the plan names a step twice, or is not the one that was begun.
        """
        names = names_of(plan)
        check_resumable(names, self.step, self._last)
        return self._remaining(plan, names)

    async def checkpoint(self, state: StateT) -> None:
        """From here on whoever owns the task goes on with `state`, at the next step.

        The state is stored, replicated, before the ruling names it. Raises `TaskFenced` where the task has gone to
        another owner or another session of this one was faster: nothing was written. Cancelled, it may stand or not;
        going on is safe either way.
        """
        async with self._lock:
            if not self._open:
                raise TaskRefused(f"the session of task {self._task.id} is over: checkpoint inside its `async with`")
            step, last = (self.step + 1, None) if self._under_way is None else self._under_way
            envelope = Envelope(
                id=self._recorder.clock.next_id(),
                tenant=self._task.tenant,
                task=self._task.id,
                epoch=self._task.epoch,
                step=step,
                last=last,
                schema_version=self._schema.version,
                previous=self.snapshot,
                state=self._schema.dump(state),
            )
            if last is not None:
                await self._did(last)
            await self._append(envelope)
            self._state, self._last = state, last

    async def _append(self, envelope: Envelope) -> None:
        task = self._task
        content = await task.keep(envelope.encoded())
        after = tuple(self._on_stream)
        self._on_stream.append(content)
        owned = await task.checkpoint(envelope.step, content, previous=envelope.previous, after=after)
        self._on_stream = [content]
        self.step, self.snapshot = envelope.step, content
        ruling = owned.tail.event
        with self._acting(causation=None if ruling is None else ruling.id):
            self._recorder.record(
                IntelligenceSnapshotTaken(
                    snapshot=content.sha256,
                    snapshot_type=SESSION,
                    source_region=self._recorder.options.region,
                    agent=scope.current().agent or task.owner,
                    task=task.id,
                    epoch=task.epoch,
                    content=content,
                    step=envelope.step,
                    schema_version=envelope.schema_version,
                    previous=None if envelope.previous is None else envelope.previous.sha256,
                )
            )

    async def _resume(self, content: Content) -> None:
        task = self._task
        reading = self._recorder.in_loop(read_snapshot(self._recorder, task.tenant, content))
        body = await asyncio.wrap_future(reading)
        try:
            envelope = decoded(body)
        except ValueError as error:
            raise TaskRefused(f"snapshot {content.sha256} of task {task.id}: {error}") from None
        if (envelope.tenant, envelope.task) != (task.tenant, task.id):
            raise SnapshotDamaged(
                f"snapshot {content.sha256} is of task {envelope.task} of {envelope.tenant}, not of {task.id}",
                sha256=content.sha256,
            )
        self._state = self._schema.load(envelope.state, envelope.schema_version)
        self.step, self._last, self.snapshot = envelope.step, envelope.last, content

    async def _remaining(self, plan: Sequence[StepT], names: Sequence[str]) -> AsyncIterator[StepT]:
        for number in range(self.step, len(plan)):
            name = names[number]
            await self._begin(name)
            self._under_way = (number + 1, name)
            try:
                yield plan[number]
            finally:
                self._under_way = None
            await self._did(name)

    async def _begin(self, name: str) -> None:
        task = self._task
        begun = DecisionCheckpointed(
            decision=task.id,
            checkpoint_type=STEP_BEGUN,
            state_snapshot={"step": name, "epoch": task.epoch, "key": task.key(name)},
        )
        with self._acting():
            await _kept(self._recorder.record(begun))

    async def _did(self, name: str) -> None:
        if name in self._task.done:
            return
        with self._acting():
            receipt = self._task.did(name)
        await _kept(receipt)

    def _acting(self, causation: str | None = None) -> AbstractContextManager[scope.Scope]:
        return scope.entered(tenant=self._task.tenant, task=self._task.id, causation=causation)


async def _kept(receipt: Receipt) -> None:
    """Until the event survives this process."""
    try:
        await receipt.reached(Ack.SPOOLED)
    except AckNotProven:  # there is no spool on disk
        try:
            await receipt.reached(Ack.REPLICATED)
        except AckNotProven:
            log.debug("event %s is on the stream, which does not prove that it fsyncs", receipt.id)
