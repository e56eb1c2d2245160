"""Tasks: the owner is who the highest epoch says."""

from folding import fact, given, moment

from relight.events.tasks import (
    ReleaseCause,
    TaskAssigned,
    TaskCheckpointed,
    TaskCompleted,
    TaskFailed,
    TaskMigrationCompleted,
    TaskMigrationFailed,
    TaskMigrationStarted,
    TaskReassigned,
    TaskReleased,
    TaskState,
    TaskStatus,
    TaskSubmitted,
)
from relight.events.values import Content
from relight.projections.tasks import ASSIGNMENTS, MIGRATIONS

SUBMITTED = TaskSubmitted(task="t", queue="refunds", payload=Content(sha256="a" * 64, size_bytes=3))
ASSIGNED = TaskAssigned(task="t", owner="a-1", owner_region="eu")
REASSIGNED = TaskReassigned(
    task="t", owner="a-2", owner_region="us", from_owner="a-1", from_region="eu", reason="eu is lost"
)
MOVE = {"task": "t", "from_region": "eu", "to_region": "us", "reason": "eu is lost", "started_at": moment(3)}


def test_a_task_is_submitted_assigned_and_completed() -> None:
    [row] = given(SUBMITTED, ASSIGNED, TaskCompleted(task="t")).when(times=2).then(ASSIGNMENTS)
    assert (row["queue"], row["payload_sha256"], row["submitted_at"]) == ("refunds", "a" * 64, moment(1))
    assert (row["owner"], row["region"], row["epoch"], row["status"]) == ("a-1", "eu", 2, "completed")


def test_a_reassignment_gives_the_task_to_another_under_a_higher_epoch() -> None:
    folded = given(SUBMITTED, ASSIGNED, REASSIGNED).when(times=2)
    [row] = folded.then(ASSIGNMENTS)
    assert (row["owner"], row["region"], row["epoch"], row["status_reason"]) == ("a-2", "us", 3, "eu is lost")
    [move] = folded.then(MIGRATIONS)
    assert (move["from_owner"], move["to_owner"], move["epoch"]) == ("a-1", "a-2", 3)
    assert (move["migration_status"], move["started_at"]) == ("initiated", moment(3))


def test_an_assignment_of_an_older_epoch_with_a_later_clock_changes_nothing() -> None:
    [row] = given(fact(REASSIGNED, rev=3, tick=1), fact(ASSIGNED, rev=2, tick=9)).when(times=2).then(ASSIGNMENTS)
    assert (row["owner"], row["epoch"]) == ("a-2", 3)


def test_a_task_that_is_given_up_says_why() -> None:
    [row] = given(SUBMITTED, TaskFailed(task="t", reason="withdrawn")).when(times=2).then(ASSIGNMENTS)
    assert (row["status"], row["status_reason"], row["owner"]) == ("failed", "withdrawn", None)


def test_a_migration_leaves_every_step_in_its_history() -> None:
    rows = (
        given(
            TaskMigrationStarted.model_validate(MOVE),
            TaskMigrationFailed.model_validate({**MOVE, "completed_at": moment(4)}),
            TaskMigrationCompleted.model_validate({**MOVE, "completed_at": moment(5)}),
        )
        .when(times=2)
        .then(MIGRATIONS)
    )
    assert [(row["migration_status"], row["completed_at"]) for row in rows] == [
        ("in_progress", None),
        ("failed", moment(4)),
        ("completed", moment(5)),
    ]


AT_FIRST = TaskState(queue="refunds", status=TaskStatus.PENDING, submitted_at=moment(0), priority=3, max_attempts=4)


def test_a_released_task_is_nobodys_and_its_history_says_why() -> None:
    state = AT_FIRST.model_copy(update={"attempt": 1, "lost_owner": "a-1", "lost_region": "eu"})
    released = TaskReleased(
        task="t", state=state, from_owner="a-1", from_region="eu", cause=ReleaseCause.LEASE_OVER, reason="silent"
    )
    folded = given(SUBMITTED, ASSIGNED, released).when(times=2)
    [row] = folded.then(ASSIGNMENTS)
    assert (row["owner"], row["region"], row["epoch"], row["status"]) == (None, None, None, "pending")
    assert (row["priority"], row["attempt"], row["max_attempts"]) == (3, 1, 4)
    [history] = folded.then(MIGRATIONS)
    assert (history["migration_status"], history["from_owner"], history["to_region"]) == ("released", "a-1", "-")


def test_a_checkpoint_says_where_the_next_owner_goes_on() -> None:
    snapshot = Content(sha256="b" * 64, size_bytes=3)
    checkpointed = TaskCheckpointed(task="t", state=AT_FIRST, step=7, snapshot=snapshot)
    [row] = given(SUBMITTED, ASSIGNED, checkpointed).when(times=2).then(ASSIGNMENTS)
    assert (row["step"], row["snapshot_sha256"], row["status"]) == (7, "b" * 64, "assigned")


def test_a_ruling_without_a_state_keeps_the_bytes_of_version_1() -> None:
    assert (SUBMITTED.written_version, SUBMITTED.model_copy(update={"state": AT_FIRST}).written_version) == (1, 2)
