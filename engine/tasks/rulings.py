"""Rulings on tasks as one process appends them, each after the revision that it knows: so that one owner wins."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TypeVar

from relight.engine import scope
from relight.engine.errors import AckTimeout, Superseded, TaskFenced, TaskRefused, TaskUnknown, Unreachable
from relight.engine.log.content_store import ContentStore
from relight.engine.log.control import ControlLog, Tail
from relight.engine.log.reader import TRANSIENT
from relight.engine.policies import reassignment
from relight.engine.policies.reassignment import POLICY_VERSION, Claimant
from relight.engine.recorder.recorder import Recorder
from relight.engine.spool.spool import SpooledContent
from relight.events.base import Control
from relight.events.subjects import control_subject
from relight.events.tasks import ReleaseCause, TaskReleased, TaskRuling, TaskState, TaskStatus, TaskSubmitted
from relight.events.values import Content

RULING_S = 10.0
PUTTING_S = 30.0
TRIES = 5
"""How often a tail that moved under an owner that still owns is folded and appended to again."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """A task as its owner knows it: `tail` is the last revision that it folded, `epoch` that of its claim."""

    tenant: str
    task: str
    tail: Tail
    state: TaskState
    epoch: int

    @property
    def who(self) -> Claimant:
        assert self.state.owner is not None
        assert self.state.owner_region is not None
        return Claimant(self.state.owner, self.state.owner_region)


class TaskLog:
    """Of one recorder, and only in its loop. What it appends says which ruling caused it, and which run it is of."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._store: ContentStore | None = None
        self._storing: object = None

    async def tail(self, tenant: str, task: str) -> Tail:
        """The task's last ruling, asked of the stream's leader."""
        return await self._control(lambda log: log.tail(TaskSubmitted, tenant=tenant, entity=task, timeout_s=RULING_S))

    async def submit(self, tenant: str, ruling: TaskSubmitted) -> Tail:
        """The task's first ruling; of one that was submitted before, the last one that stands there.

        Raises `TaskRefused` where what stands there is another task's; `Unreachable`, `AckTimeout`.
        """
        subject_tail = Tail(subject=_subject(tenant, ruling.task))
        try:
            return await self._append(tenant, ruling, subject_tail)
        except Superseded:
            there = await self.tail(tenant, ruling.task)
        state = state_of(there)
        if state is not None and ruling.state is not None:
            asked = ruling.state
            if (state.queue, state.payload) != (asked.queue, asked.payload):
                raise TaskRefused(
                    f"task {ruling.task} of {tenant} was submitted before, to queue {state.queue} with another payload"
                    " or queue: give this one another id"
                )
        return there

    async def claim(
        self, tenant: str, task: str, who: Claimant, *, taking: Callable[[int], None] | None = None
    ) -> Owned | None:
        """The task, if it waits for an owner and nobody was faster; that it is due is its dispatcher's business.

        `taking` is told the epoch beforehand: whether the claim was won may come to be known late.
        """
        tail = await self.tail(tenant, task)
        state = state_of(tail)
        if state is None or state.status is not TaskStatus.PENDING:
            return None
        event = tail.event
        reason = event.data.reason if event is not None and isinstance(event.data, TaskReleased) else None
        epoch = tail.rev + 1
        ruling = reassignment.claimed(task, state, who, rev=epoch, reason=reason)
        assert ruling.state is not None
        if taking is not None:
            taking(epoch)
        try:
            tail = await self._append(tenant, ruling, tail)
        except Superseded:
            return None
        return Owned(tenant=tenant, task=task, tail=tail, state=ruling.state, epoch=epoch)

    async def check(self, owned: Owned) -> Owned:
        """It is still this owner's, says the stream's leader. Raises `TaskFenced`."""
        return _still(owned, await self.tail(owned.tenant, owned.task))

    async def complete(self, owned: Owned, result: Content | None) -> Tail:
        """It is finished; recorded once. Raises `TaskFenced`."""
        return await self._rule(owned, lambda now: reassignment.completed(now.task, now.state, result))

    async def fail(self, owned: Owned, reason: str) -> Tail:
        """It is given up, whatever attempts are left. Raises `TaskFenced`."""
        return await self._rule(owned, lambda now: reassignment.failed(now.task, now.state, reason))

    async def release(
        self,
        owned: Owned,
        cause: ReleaseCause,
        reason: str,
        *,
        backoff_s: float = reassignment.BACKOFF_S,
        max_attempts: int | None = None,
    ) -> Tail:
        """It waits for another owner, or is given up after its last attempt. Raises `TaskFenced`."""

        def ruled(now: Owned) -> TaskRuling:
            return reassignment.released(
                now.task,
                now.state,
                cause,
                reason,
                now=self._recorder.clock.now(),
                backoff_s=backoff_s,
                max_attempts=max_attempts,
            )

        return await self._rule(owned, ruled)

    async def checkpoint(
        self,
        owned: Owned,
        step: int,
        snapshot: Content | None,
        *,
        previous: Content | None = None,
        after: Collection[Content | None] | None = None,
    ) -> Owned:
        """Its session is as far as `step`; `after`: the snapshots that it goes on from, if any other must not be lost.

        Raises `TaskFenced`, also where another session of the same owner was faster.
        """

        def ruled(now: Owned) -> TaskRuling:
            if after is not None and now.state.snapshot not in after:
                raise TaskFenced(
                    f"task {now.task} of {now.tenant} is at step {now.state.step} by another session of this owner:"
                    " nothing was written, let one of them work on it",
                    task=now.task,
                    epoch=now.epoch,
                    owner=now.state.owner,
                    region=now.state.owner_region,
                    new_epoch=now.state.epoch,
                )
            return reassignment.checkpointed(now.task, now.state, step, snapshot, previous=previous)

        tail = await self._rule(owned, ruled)
        state = state_of(tail)
        assert state is not None
        return replace(owned, tail=tail, state=state)

    async def keep(self, tenant: str, body: bytes) -> Content:
        """Bytes in the content store, durable there before any ruling names them. Raises `Unreachable`."""
        client = await self._recorder.client()
        if self._store is None or self._storing is not client:
            self._store, self._storing = ContentStore(client), client
        sha256 = hashlib.sha256(body).hexdigest()
        content = SpooledContent(tenant, sha256, body, self._recorder.clock.now_us() // 1_000)
        try:
            async with asyncio.timeout(PUTTING_S):
                await self._store.put([content])
        except TRANSIENT as error:
            raise Unreachable(f"content {sha256} is not stored yet ({error!r}): the same again is safe") from error
        return Content(sha256=sha256, size_bytes=len(body))

    async def _rule(self, owned: Owned, decide: Callable[[Owned], TaskRuling]) -> Tail:
        """What `decide` says of the task as it is now, as long as it is the owner's. Raises `TaskFenced`."""
        for _ in range(TRIES):
            ruling = decide(owned)
            try:
                return await self._append(owned.tenant, ruling, owned.tail)
            except (Superseded, AckTimeout) as error:
                failure = error
            tail = await self.tail(owned.tenant, owned.task)
            if _is_this(tail, owned, ruling):
                return tail  # ours, whose answer was lost
            owned = _still(owned, tail)
        raise failure

    async def _append(self, tenant: str, ruling: Control, after: Tail) -> Tail:
        with _of_its_run(after):
            return await self._control(
                lambda log: log.append(
                    ruling, after=after, tenant=tenant, policy_version=POLICY_VERSION, timeout_s=RULING_S
                )
            )

    async def _control(self, work: Callable[[ControlLog], Awaitable[T]]) -> T:
        return await self._recorder.with_control(work)


def state_of(tail: Tail) -> TaskState | None:
    """What the last ruling says of the task; None where there is none, or one of a release that did not say it."""
    if tail.event is None or not isinstance(tail.event.data, TaskRuling):
        return None
    return tail.event.data.state


def known_state(tail: Tail, tenant: str, task: str) -> TaskState:
    """Raises `TaskUnknown`."""
    state = state_of(tail)
    if state is None:
        raise TaskUnknown(f"there is no task {task} of tenant {tenant} that a worker could work on")
    return state


def _still(owned: Owned, tail: Tail) -> Owned:
    """The owner's view of `tail`. Raises `TaskFenced` naming who has the task now."""
    state = state_of(tail)
    if (
        state is not None
        and state.status is TaskStatus.ASSIGNED
        and (state.owner, state.epoch) == (owned.state.owner, owned.epoch)
    ):
        return replace(owned, tail=tail, state=state)
    if state is None or state.owner is None:
        now, whose = "nobody has it now: it waits for another owner", None
    else:
        now, whose = f"it is {state.status} by {state.owner} in {state.owner_region}, epoch {state.epoch}", state
    raise TaskFenced(
        f"task {owned.task} of {owned.tenant} is not {owned.state.owner}'s under epoch {owned.epoch} any more; {now}:"
        " nothing was written, stop working on it",
        task=owned.task,
        epoch=owned.epoch,
        owner=whose.owner if whose else None,
        region=whose.owner_region if whose else None,
        new_epoch=whose.epoch if whose else None,
    )


def _is_this(tail: Tail, owned: Owned, ruling: TaskRuling) -> bool:
    """Whether the last revision is this owner's own, appended just now: it says the same right after what it knew."""
    return tail.event is not None and tail.rev == owned.tail.rev + 1 and tail.event.data == ruling


def _of_its_run(after: Tail) -> AbstractContextManager[scope.Scope]:
    """The scope of what follows a ruling: the same run, caused by it."""
    event = after.event
    if event is None:
        return scope.entered()
    return scope.entered(correlation=event.correlationid or event.id, causation=event.id)


def _subject(tenant: str, task: str) -> str:
    assert TaskSubmitted.POLICY is not None
    return control_subject(TaskSubmitted.POLICY, tenant, task)
