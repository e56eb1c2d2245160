"""What is decided about tasks: whose turn it is, when one is due, and which ruling follows when an owner is lost."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relight.engine.policies import reassignment
from relight.engine.policies.dispatching import Pending, Pool
from relight.engine.policies.reassignment import Claimant, Owner, backoff_after, claimed, lost, released, submitted
from relight.events.tasks import ReleaseCause, TaskAssigned, TaskFailed, TaskReassigned, TaskReleased, TaskState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
A, B = Claimant("w-1", "eu"), Claimant("w-2", "us")
S = 1_000_000

tenants = st.sampled_from(("a", "b", "c"))
pendings = st.builds(
    Pending,
    queue=st.sampled_from(("q", "r")),
    tenant=tenants,
    task=st.sampled_from([f"t-{n}" for n in range(12)]),
    priority=st.integers(-2, 2),
    due_us=st.integers(0, 20),
    seq=st.integers(1, 1_000),
)


def task(n: int, tenant: str = "a", *, priority: int = 0, due_us: int = 0, queue: str = "q") -> Pending:
    return Pending(queue, tenant, f"{tenant}-{n}", priority, due_us, n)


def taken(pool: Pool, most: int, *, now_us: int = 0) -> list[Pending]:
    found = (pool.take("q", now_us) for _ in range(most))
    return [pending for pending in found if pending is not None]


# Whose turn it is


@given(st.lists(pendings | st.tuples(tenants, st.sampled_from([f"t-{n}" for n in range(12)])), max_size=60))
def test_every_task_that_is_due_is_offered_once_and_none_that_was_dropped(steps: list[object]) -> None:
    pool, expected = Pool(), dict[tuple[str, str], Pending]()
    for step in steps:
        if isinstance(step, Pending):
            pool.put(step)
            expected[step.key] = step
        else:
            assert pool.drop(step) == expected.pop(step, None)  # type: ignore[arg-type,call-overload]
        assert len(pool) == len(expected)
    for now_us in (5, 10, 20):
        for queue in ("q", "r"):
            due = {one for one in expected.values() if one.queue == queue and one.due_us <= now_us}
            offered = set()
            while (one := pool.take(queue, now_us)) is not None:
                assert one not in offered
                offered.add(one)
            assert offered == due
            for one in due:
                del expected[one.key]
            later = [one.due_us for one in expected.values() if one.queue == queue]
            assert pool.next_due_us(queue, now_us) == min(later, default=None)
            assert pool.waiting(queue) == len(later)
    assert len(pool) == 0


@given(st.lists(st.tuples(tenants, st.integers(1, 3)), min_size=1, max_size=80), st.data())
def test_between_two_turns_of_a_tenant_that_waits_each_other_goes_once(
    told: list[tuple[str, int]], data: st.DataObject
) -> None:
    pool = Pool()
    for n, (tenant, priority) in enumerate(told):
        pool.put(task(n, tenant, priority=priority))
    left = {tenant: sum(one == tenant for one, _ in told) for tenant in "abc"}
    order = [one.tenant for one in taken(pool, len(told))]
    assert len(order) == len(told)
    for n, tenant in enumerate(order):
        # So many of others as there are other tenants go before a tenant that waits.
        waited = next((m for m, one in enumerate(order[n + 1 :]) if one == tenant), None)
        others = set(order[n + 1 :]) - {tenant}
        if waited is not None:
            assert waited <= len(others), left


def test_a_thousand_tasks_of_one_tenant_do_not_keep_ten_of_another_waiting() -> None:
    pool = Pool()
    for tenant, tasks in (("a", 1_000), ("b", 10), ("c", 10)):
        for n in range(tasks):
            pool.put(task(n, tenant, priority=9 if tenant == "a" else 0))
    assert sorted(one.tenant for one in taken(pool, 30)) == ["a"] * 10 + ["b"] * 10 + ["c"] * 10


def test_a_tenants_weight_says_how_many_go_in_its_turn() -> None:
    pool = Pool({"a": 3})
    for tenant in "ab":
        for n in range(6):
            pool.put(task(n, tenant))
    assert "".join(one.tenant for one in taken(pool, 12)) == "aaabaaabbbbb"


def test_within_a_tenant_the_highest_priority_goes_first_then_what_was_due_first() -> None:
    pool = Pool()
    for one in (task(1, due_us=5), task(2, priority=1, due_us=6), task(3, due_us=4), task(4, priority=-1, due_us=0)):
        pool.put(one)
    assert [one.seq for one in taken(pool, 4, now_us=6)] == [2, 3, 1, 4]


def test_a_worker_of_one_tenant_gets_that_tenants_tasks_alone() -> None:
    pool = Pool()
    pool.put(task(1, "a"))
    pool.put(task(2, "b"))
    assert [pool.take("q", 0, tenant="b"), pool.take("q", 0, tenant="b")] == [task(2, "b"), None]


def test_what_was_dropped_does_not_pile_up() -> None:
    pool = Pool()
    pool.put(task(0, due_us=10**9))
    for n in range(1, 20_000):
        pool.put(task(n, due_us=10**9 if n % 2 else 0))
        pool.next_due_us("q", 0)
        pool.drop(("a", f"a-{n}"))
    queue = pool._queues["q"]
    assert len(queue._later) + queue._entries < 3_000


# Which ruling follows


def state(*, attempts: int = 0, max_attempts: int = 3) -> TaskState:
    made = submitted("t", "q", now=NOW, max_attempts=max_attempts).state
    assert made is not None
    return made.model_copy(update={"attempt": attempts})


def owned(who: Claimant = A, *, attempts: int = 0, max_attempts: int = 3) -> TaskState:
    made = claimed("t", state(attempts=attempts, max_attempts=max_attempts), who, rev=2).state
    assert made is not None
    return made


def test_the_epoch_of_an_owner_is_the_revision_of_its_claim() -> None:
    ruling = claimed("t", state(), A, rev=7)
    assert isinstance(ruling, TaskAssigned)
    assert ruling.state is not None
    assert (ruling.state.owner, ruling.state.epoch, ruling.state.attempt) == ("w-1", 7, 1)


@pytest.mark.parametrize("cause", sorted(reassignment.LOST))
def test_a_task_of_a_lost_owner_is_taken_over_from_it(cause: ReleaseCause) -> None:
    release = released("t", owned(), cause, "silent", now=NOW)
    assert isinstance(release, TaskReleased)
    assert (release.from_owner, release.state.not_before, release.state.owner) == ("w-1", None, None)
    taken_over = claimed("t", release.state, B, rev=4, reason=release.reason)
    assert isinstance(taken_over, TaskReassigned)
    assert (taken_over.from_owner, taken_over.from_region, taken_over.owner) == ("w-1", "eu", "w-2")
    assert taken_over.state is not None
    assert (taken_over.state.attempt, taken_over.state.lost_owner) == (2, None)


def test_what_was_given_back_is_no_attempt_and_nobodys_loss() -> None:
    release = released("t", owned(), ReleaseCause.GIVEN_BACK, "stops", now=NOW)
    assert isinstance(release, TaskReleased)
    assert (release.state.attempt, release.state.lost_owner) == (0, None)
    assert isinstance(claimed("t", release.state, B, rev=4), TaskAssigned)


def test_what_failed_waits_twice_as_long_each_time() -> None:
    waits = []
    for attempts in range(2):
        release = released("t", owned(attempts=attempts), ReleaseCause.FAILED, "no", now=NOW, backoff_s=8)
        assert isinstance(release, TaskReleased)
        assert release.state.not_before is not None
        waits.append((release.state.not_before - NOW) / timedelta(seconds=1))
    assert 8 <= waits[0] <= 10
    assert waits[1] == pytest.approx(2 * waits[0], abs=1e-5)


@pytest.mark.parametrize("cause", [ReleaseCause.FAILED, ReleaseCause.LEASE_OVER])
@pytest.mark.parametrize(("max_attempts", "of_worker"), [(3, None), (9, 3)])
def test_the_last_attempt_makes_it_a_dead_letter(cause: ReleaseCause, max_attempts: int, of_worker: int | None) -> None:
    last = owned(attempts=2, max_attempts=max_attempts)
    ruling = released("t", last, cause, "no", now=NOW, max_attempts=of_worker)
    assert isinstance(ruling, TaskFailed)
    assert ruling.reason == "no (attempt 3 of 3)"


@given(st.text(min_size=1, max_size=5), st.integers(1, 10_000), st.floats(0.01, 1_000))
def test_a_wait_is_never_longer_than_five_minutes_and_a_quarter(name: str, attempt: int, first_s: float) -> None:
    assert 0 < backoff_after(name, attempt, first_s) <= 1.25 * reassignment.MAX_BACKOFF_S


def test_an_owner_is_lost_when_its_region_or_it_is_isolated_or_it_is_silent_or_does_not_hold_the_task() -> None:
    assert lost(Owner(A, silent_s=14.9), lease_s=15) is None
    causes = [
        lost(owner, lease_s=15)
        for owner in (
            Owner(A, silent_s=15.1),
            Owner(A, silent_s=0, isolated=True),
            Owner(A, silent_s=99, region_isolated=True),
            Owner(A, silent_s=0, unheld_s=reassignment.UNHELD_S + 1),
        )
    ]
    assert [cause and cause[0].value for cause in causes] == ["lease_over", "owner_lost", "region_lost", "not_held"]
