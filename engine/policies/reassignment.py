"""Which ruling follows on a task: claimed, given back, failed, lost, checkpointed, completed; a pure decider.

An owner's epoch is the revision of the ruling that gave it the task. Whatever releases the task is a later revision, so
that from there on nothing that the owner appends after its own last ruling is taken.
"""

import zlib
from datetime import datetime, timedelta
from typing import NamedTuple

from relight.events.tasks import (
    ReleaseCause,
    TaskAssigned,
    TaskCheckpointed,
    TaskCompleted,
    TaskFailed,
    TaskReassigned,
    TaskReleased,
    TaskState,
    TaskStatus,
    TaskSubmitted,
)
from relight.events.values import Content

POLICY_VERSION = "reassignment-2"
MAX_ATTEMPTS = 5
BACKOFF_S = 1.0
MAX_BACKOFF_S = 300.0
LEASE_S = 15.0
"""An owner that is silent for so long is lost. Heartbeats travel over core NATS, which an election of a stream's leader
stalls for half a second; a lease holds for three elections of 4 to 5 s, should they stall it after all."""
UNHELD_S = 3.0
"""An owner that lives and says for so long that it does not hold the task never knew that it won it."""
LOST = frozenset({ReleaseCause.OWNER_LOST, ReleaseCause.REGION_LOST, ReleaseCause.LEASE_OVER, ReleaseCause.NOT_HELD})


class Claimant(NamedTuple):
    """Who would own it."""

    owner: str
    region: str


def submitted(
    task: str,
    queue: str,
    *,
    now: datetime,
    payload: Content | None = None,
    priority: int = 0,
    max_attempts: int = MAX_ATTEMPTS,
    delay_s: float = 0,
) -> TaskSubmitted:
    """A new task, due after the delay."""
    state = TaskState(
        queue=queue,
        status=TaskStatus.PENDING,
        submitted_at=now,
        payload=payload,
        priority=priority,
        max_attempts=max_attempts,
        not_before=now + timedelta(seconds=delay_s) if delay_s > 0 else None,
    )
    return TaskSubmitted(task=task, queue=queue, payload=payload, state=state)


def claimed(
    task: str, state: TaskState, who: Claimant, *, rev: int, reason: str | None = None
) -> TaskAssigned | TaskReassigned:
    """`who` owns it under epoch `rev`; reassigned where another was lost, `reason` being why."""
    changes = {
        "status": TaskStatus.ASSIGNED,
        "attempt": state.attempt + 1,
        "not_before": None,
        "owner": who.owner,
        "owner_region": who.region,
        "epoch": rev,
        "lost_owner": None,
        "lost_region": None,
    }
    owned = state.model_copy(update=changes)
    if state.lost_owner is None or state.lost_region is None:
        return TaskAssigned(task=task, owner=who.owner, owner_region=who.region, state=owned)
    return TaskReassigned(
        task=task,
        owner=who.owner,
        owner_region=who.region,
        from_owner=state.lost_owner,
        from_region=state.lost_region,
        reason=reason or f"{state.lost_owner} was lost",
        state=owned,
    )


def released(
    task: str,
    state: TaskState,
    cause: ReleaseCause,
    reason: str,
    *,
    now: datetime,
    backoff_s: float = BACKOFF_S,
    max_attempts: int | None = None,
) -> TaskReleased | TaskFailed:
    """It waits for another owner, or is given up: after so many attempts, of the task or of whoever asks.

    What was given back does not count as an attempt. What failed waits longer each time; what was lost is due at once,
    with the session it had.
    """
    assert state.owner is not None
    assert state.owner_region is not None
    nobodys = {"owner": None, "owner_region": None, "epoch": None}
    most = min(state.max_attempts, max_attempts or state.max_attempts)
    if cause is not ReleaseCause.GIVEN_BACK and state.attempt >= most:
        return failed(task, state, f"{reason} (attempt {state.attempt} of {most})")
    changes: dict[str, object] = {"status": TaskStatus.PENDING, **nobodys}
    match cause:
        case ReleaseCause.GIVEN_BACK:
            changes["attempt"] = state.attempt - 1
        case ReleaseCause.FAILED:
            wait_s = backoff_after(task, state.attempt, backoff_s)
            changes["not_before"] = now + timedelta(seconds=wait_s)
        case _:
            changes |= {"lost_owner": state.owner, "lost_region": state.owner_region}
    return TaskReleased(
        task=task,
        state=state.model_copy(update=changes),
        from_owner=state.owner,
        from_region=state.owner_region,
        cause=cause,
        reason=reason,
    )


def failed(task: str, state: TaskState, reason: str) -> TaskFailed:
    """It is given up: a dead letter."""
    return TaskFailed(task=task, reason=reason, state=state.model_copy(update={"status": TaskStatus.FAILED}))


def completed(task: str, state: TaskState, result: Content | None) -> TaskCompleted:
    """The owner has finished it."""
    done = state.model_copy(update={"status": TaskStatus.COMPLETED})
    return TaskCompleted(task=task, result=result, state=done)


def checkpointed(
    task: str, state: TaskState, step: int, snapshot: Content | None, *, previous: Content | None = None
) -> TaskCheckpointed:
    """The owner goes on; whoever comes after it would go on from here, or from `previous` if that cannot be read."""
    there = state.model_copy(update={"step": step, "snapshot": snapshot, "previous": previous})
    return TaskCheckpointed(task=task, step=step, snapshot=snapshot, state=there)


def backoff_after(task: str, attempt: int, first_s: float) -> float:
    """Doubles with each attempt; up to a quarter more, by the task's name, so that what failed together spreads."""
    spread = 1 + zlib.crc32(task.encode()) % 1_000 / 4_000
    return min(MAX_BACKOFF_S, first_s * 2.0 ** min(attempt - 1, 20)) * spread


class Owner(NamedTuple):
    """What is known of the owner of a task now."""

    claimant: Claimant
    silent_s: float
    unheld_s: float = 0
    left: bool = False
    isolated: bool = False
    region_isolated: bool = False


def lost(owner: Owner, *, lease_s: float = LEASE_S, unheld_s: float = UNHELD_S) -> tuple[ReleaseCause, str] | None:
    """Why its tasks are released, if they are."""
    name, region = owner.claimant
    if owner.region_isolated:
        return ReleaseCause.REGION_LOST, f"region {region} is isolated"
    if owner.isolated:
        return ReleaseCause.OWNER_LOST, f"{name} is isolated"
    if owner.left:
        return ReleaseCause.OWNER_LOST, f"{name} stopped with it"
    if owner.silent_s > lease_s:
        return ReleaseCause.LEASE_OVER, f"{name} was silent for {owner.silent_s:.0f} s"
    if owner.unheld_s > unheld_s:
        return ReleaseCause.NOT_HELD, f"{name} says that it does not hold it"
    return None
