"""Tasks on a real server: each is completed once, by who owns it, however workers and servers fail meanwhile."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from stack import until
from tasking import Children, Stage, staged

from relight.engine import scope
from relight.engine.errors import TaskFenced, TaskGivenUp, TaskRefused
from relight.engine.policies.reassignment import Claimant
from relight.engine.tasks.rulings import Owned
from relight.engine.tasks.task import STEP, Task
from relight.events.decisions import DecisionCheckpointed
from relight.events.errors import InvalidEvent
from relight.events.tasks import (
    ReleaseCause,
    TaskAssigned,
    TaskCompleted,
    TaskFailed,
    TaskMigrationCompleted,
    TaskReassigned,
    TaskReleased,
    TaskStatus,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
A, B = Claimant("w-a", "eu"), Claimant("w-b", "us")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    async with staged() as stage:
        yield stage


async def claimed(stage: Stage, tenant: str, task: str, who: Claimant = A) -> Owned:
    owned = await stage.in_loop(stage.log.claim(tenant, task, who))
    assert owned is not None
    return owned


async def test_of_two_who_claim_a_task_one_wins(stage: Stage) -> None:
    await stage.submit_many("race", 20, tenant="race")
    async with stage.another("us") as (other, _):
        other_log = type(stage.log)(other)

        async def race(task: str) -> list[Owned]:
            found = await asyncio.gather(
                stage.in_loop(stage.log.claim("race", task, A)),
                stage.in_loop(other_log.claim("race", task, B), other),
            )
            return [owned for owned in found if owned is not None]

        winners = await asyncio.gather(*(race(str(n)) for n in range(20)))
    assert [len(won) for won in winners] == [1] * 20
    for n, [won] in enumerate(winners):
        state = await stage.state("race", str(n))
        assert (state.owner, state.epoch) == (won.who.owner, won.epoch) == (won.state.owner, 2)


async def test_a_stale_owner_is_told_who_has_the_task_now_and_writes_nothing(stage: Stage) -> None:
    await stage.submit("stale", tenant="stale", task="t")
    stale = await claimed(stage, "stale", "t")
    await stage.in_loop(stage.log.release(stale, ReleaseCause.LEASE_OVER, "silent"))
    with pytest.raises(TaskFenced, match="not w-a's under epoch 2 any more; nobody has it now"):
        await stage.in_loop(stage.log.complete(stale, None))
    owner = await claimed(stage, "stale", "t", B)
    for attempt in (
        stage.log.complete(stale, None),
        stage.log.checkpoint(stale, 1, None),
        stage.log.release(stale, ReleaseCause.FAILED, "no"),
        stage.log.check(stale),
    ):
        with pytest.raises(TaskFenced, match="it is assigned by w-b in us, epoch 4") as fenced:
            await stage.in_loop(attempt)
        assert (fenced.value.owner, fenced.value.region, fenced.value.new_epoch) == ("w-b", "us", 4)
    owner = await stage.in_loop(stage.log.checkpoint(owner, 3, None))
    await stage.in_loop(stage.log.complete(owner, None))
    rulings = (await stage.rulings("stale"))["t"]
    assert [event.type.partition(".")[2] for event in rulings] == [
        "submitted",
        "assigned",
        "released",
        "reassigned",
        "checkpointed",
        "completed",
    ]
    moved = rulings[3].data
    assert isinstance(moved, TaskReassigned)
    assert (moved.from_owner, moved.from_region, moved.owner, moved.reason) == ("w-a", "eu", "w-b", "silent")
    assert len({event.correlationid for event in rulings}) == 1
    assert [event.causationid for event in rulings[1:]] == [event.id for event in rulings[:-1]]


async def test_another_tenant_cannot_touch_a_task(stage: Stage) -> None:
    await stage.submit("mine", tenant="mine", task="t")
    owned = await claimed(stage, "mine", "t")
    assert await stage.in_loop(stage.log.claim("theirs", "t", B)) is None
    forged = Owned(tenant="theirs", task="t", tail=owned.tail, state=owned.state, epoch=owned.epoch)
    with pytest.raises(InvalidEvent, match=r"belongs on ctl\.reassignment\.theirs\.t"):
        await stage.in_loop(stage.log.complete(forged, None))
    with pytest.raises(TaskFenced):
        await stage.in_loop(stage.log.check(forged))
    assert (await stage.state("mine", "t")).owner == "w-a"
    assert await stage.rulings("theirs") == {}


async def test_the_same_task_is_submitted_once(stage: Stage) -> None:
    first = await stage.submit("once", {"n": 1}, tenant="once", task="t", priority=3)
    again = await stage.submit("once", {"n": 1}, tenant="once", task="t")
    assert (again.tail.rev, again.tail.seq, again.state.priority) == (1, first.tail.seq, 3)
    with pytest.raises(TaskRefused, match="task t of once was submitted before"):
        await stage.submit("once", {"n": 2}, tenant="once", task="t")
    await claimed(stage, "once", "t")
    assert (await stage.submit("once", {"n": 1}, tenant="once", task="t")).state.status is TaskStatus.ASSIGNED


@pytest.mark.parametrize(
    ("queue", "more", "said"),
    [
        ("", {}, "at least 1 character"),
        ("q", {"task": "a\nb"}, "match pattern"),
        ("q", {"max_attempts": 0}, "greater than or equal to 1"),
        ("q", {"priority": 2**60}, "less than or equal to"),
        ("q", {"payload": {1, 2}}, "its payload is no JSON"),
        ("q", {"delay_s": 1e30}, "task"),
    ],
)
async def test_a_task_that_nobody_could_work_on_is_refused(
    stage: Stage, queue: str, more: dict[str, object], said: str
) -> None:
    with pytest.raises(TaskRefused, match=said):
        await stage.submit(queue, tenant="refused", **more)


async def test_what_a_worker_does_is_recorded_as_the_tasks(stage: Stage) -> None:
    seen: list[tuple[object, ...]] = []
    async with stage.another() as (recorder, working):

        @working.register("scoped")
        async def work(task: Task) -> dict[str, object]:
            here = scope.current()
            seen.append((here.tenant, here.task, here.agent == task.owner, task.json(), task.attempt))
            async with task.effect("charge") as key:
                assert key == task.key("charge")
            return {"paid": 7}

        with scope.entered(correlation="run-7"):
            await stage.submit("scoped", {"order": 991}, tenant="scoped", task="t")
        async with working.working():
            await stage.all_ended("scoped", 1)
        await until(lambda: recorder.health().exposed_events == 0)
    assert seen == [("scoped", "t", True, {"order": 991}, 1)]
    events = await stage.events("scoped")
    assert {event.correlationid for event in events} == {"run-7"}
    [step] = [event.data for event in events if isinstance(event.data, DecisionCheckpointed)]
    assert (step.decision, step.checkpoint_type, step.state_snapshot["epoch"]) == ("t", STEP, 2)
    [end] = [event.data for event in events if isinstance(event.data, TaskCompleted)]
    assert end.result is not None


async def test_a_task_that_fails_is_tried_again_and_given_up_in_the_end(stage: Stage) -> None:
    attempts: Counter[str] = Counter()
    async with stage.another() as (_, working):

        @working.register("fails", concurrency=4, backoff_s=0.02, retries=3)
        async def work(task: Task) -> None:
            attempts[task.id] += 1
            if task.id == "hopeless":
                raise TaskGivenUp("the customer withdrew")
            if task.id != "second" or task.attempt == 1:
                raise ValueError(f"no {task.attempt}")

        for task, most in (("second", 5), ("never", 2), ("workers", 9), ("hopeless", 5)):
            await stage.submit("fails", tenant="fails", task=task, max_attempts=most)
        async with working.working():
            await stage.all_ended("fails", 4)
    assert attempts == {"second": 2, "never": 2, "workers": 4, "hopeless": 1}
    last = {task: events[-1].data for task, events in (await stage.rulings("fails")).items()}
    assert isinstance(last["second"], TaskCompleted)
    reasons = {task: end.reason for task, end in last.items() if isinstance(end, TaskFailed)}
    assert reasons == {
        "never": "ValueError: no 2 (attempt 2 of 2)",
        "workers": "ValueError: no 4 (attempt 4 of 4)",
        "hopeless": "TaskGivenUp: the customer withdrew",
    }


async def test_priorities_and_delays_say_what_comes_first(stage: Stage) -> None:
    order: list[str] = []
    await stage.submit("order", tenant="order", task="later", delay_s=1.0, priority=9)
    for task, priority in (("low", -1), ("middle", 0), ("high", 5)):
        await stage.submit("order", tenant="order", task=task, priority=priority)
    async with stage.another() as (recorder, working):

        @working.register("order")
        async def work(task: Task) -> None:
            if task.id == "later":
                assert recorder.clock.now() >= task.submitted_at
            order.append(task.id)

        async with working.working():
            await stage.all_ended("order", 4)
    assert order == ["high", "middle", "low", "later"]
    rulings = (await stage.rulings("order"))["later"]
    assert (rulings[1].time - rulings[0].time).total_seconds() >= 1.0


async def test_a_thousand_tasks_of_one_tenant_do_not_keep_those_of_others_waiting(stage: Stage) -> None:
    order: list[str] = []
    await stage.submit_many("fair", 1_000, tenant="many")
    for tenant in ("few", "some"):
        await stage.submit_many("fair", 10, tenant=tenant)
    async with stage.another() as (_, working):

        @working.register("fair", concurrency=2)
        async def work(task: Task) -> None:
            order.append(task.tenant)

        async with working.working():
            await stage.all_ended("few", 10)
            await stage.all_ended("some", 10)
    within = 40  # turns of three, and what two at a time may overtake
    assert Counter(order[:within])["few"] == Counter(order[:within])["some"] == 10


async def test_a_worker_that_stops_lets_what_runs_end_and_gives_back_the_rest(stage: Stage) -> None:
    begun, go = asyncio.Event(), asyncio.Event()
    await stage.submit("stops", tenant="stops", task="short")
    await stage.submit("stops", tenant="stops", task="long")
    async with stage.another() as (_, working):

        @working.register("stops", concurrency=2)
        async def work(task: Task) -> None:
            if task.id == "long":
                begun.set()
                await asyncio.sleep(60)
            await go.wait()

        async with working.working(drain_s=0.3) as worker:
            await begun.wait()
            await until(lambda: len(worker.held) == 2)
            asyncio.get_running_loop().call_later(0.05, go.set)
    short, long = await stage.state("stops", "short"), await stage.state("stops", "long")
    assert short.status is TaskStatus.COMPLETED
    assert (long.status, long.attempt, long.owner, long.lost_owner) == (TaskStatus.PENDING, 0, None, None)
    last = (await stage.rulings("stops"))["long"][-1].data
    assert isinstance(last, TaskReleased)
    assert (last.cause, last.reason) == (ReleaseCause.GIVEN_BACK, "its worker stops")


async def test_a_worker_of_one_tenant_is_given_no_others_tasks(stage: Stage) -> None:
    for tenant in ("own", "foreign"):
        await stage.submit("tenants", tenant=tenant, task="t")
    async with stage.another() as (_, working):

        @working.register("tenants", tenant="own")
        async def work(task: Task) -> None:
            assert task.tenant == "own"

        async with working.working():
            await stage.all_ended("own", 1)
    assert (await stage.state("foreign", "t")).status is TaskStatus.PENDING


async def test_a_worker_that_says_that_it_does_not_hold_a_task_loses_it(stage: Stage) -> None:
    """As one whose claim was taken, and who never came to know."""
    await stage.submit("unheld", tenant="unheld", task="t")
    async with stage.another() as (_, working):

        @working.register("nothing at all")
        async def work(task: Task) -> None: ...

        async with working.working() as worker:
            await claimed(stage, "unheld", "t", Claimant(worker.id, "eu"))
            await until(lambda: worker.failure is None)

            async def released() -> bool:
                return (await stage.state("unheld", "t")).status is TaskStatus.PENDING

            await until(released, "it is released")
    [*_, last] = (await stage.rulings("unheld"))["t"]
    assert isinstance(last.data, TaskReleased)
    assert last.data.cause is ReleaseCause.NOT_HELD


async def test_a_worker_stopped_beyond_its_lease_is_fenced_when_it_comes_back(stage: Stage) -> None:
    await stage.submit("paused", tenant="paused", task="t")
    how = {"takes_s": 1.0, "has_an_effect": True}
    async with Children.forked(stage, "paused", 1, **how) as first:
        await until(lambda: first.of("begun"), "it works on the task")
        os.kill(first.pids()[0], signal.SIGSTOP)
        async with Children.forked(stage, "paused", 1, region="us", **how) as second:
            await until(lambda: second.of("done"), "another has done it")
            await stage.all_ended("paused", 1)
        os.kill(first.pids()[0], signal.SIGCONT)
        await until(lambda: first.of("cancelled") or first.of("fenced"), "the first one is fenced")
        assert first.of("effect") == first.of("done") == []
    events = await stage.events("paused")
    [end] = [event for event in events if isinstance(event.data, TaskCompleted)]
    [moved] = [event.data for event in events if isinstance(event.data, TaskReassigned)]
    assert (moved.from_owner, moved.from_region) == (first.of("works")[0]["id"], "eu")
    assert (moved.owner, moved.owner_region) == (second.of("works")[0]["id"], "us")
    assert end.data.state is not None
    assert end.data.state.owner == moved.owner
    assert [event.data.to_region for event in events if isinstance(event.data, TaskMigrationCompleted)] == ["us"]
    assert first.of("begun")[0]["epoch"] < second.of("begun")[0]["epoch"]


async def test_whoever_is_killed_every_task_is_completed_once(stage: Stage) -> None:
    """Five hundred tasks, eight processes of which three are killed, one attempt in seven fails; meanwhile the
    dispatcher is replaced."""
    tasks = 500
    await stage.submit_many("killed", tasks, tenant="killed", max_attempts=20)
    async with Children.forked(stage, "killed", 8, concurrency=2, fails_every=7, takes_s=0.01) as children:
        await until(lambda: len(children.of("done")) > 50, "work goes on")
        for pid in children.pids()[:3]:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: len(children.of("done")) > 150, "work goes on without them")
        await stage.dispatch()
        await stage.all_ended("killed", tasks)
        killed = {said["id"] for said in children.of("works")[:3]}
    rulings = await stage.rulings("killed")
    assert len(rulings) == tasks
    completed = [sum(isinstance(event.data, TaskCompleted) for event in events) for events in rulings.values()]
    assert completed == [1] * tasks
    lost = 0
    for events in rulings.values():
        claims = [event for event in events if isinstance(event.data, TaskAssigned | TaskReassigned)]
        causes = [event.data.cause for event in events if isinstance(event.data, TaskReleased)]
        assert [event.data.state and event.data.state.epoch for event in claims] == [event.rev for event in claims]
        end = events[-1].data.state
        assert end is not None
        assert end.attempt == len(claims) == len(causes) + 1
        assert isinstance(events[-1].data, TaskCompleted)
        for event in events:
            if isinstance(event.data, TaskReassigned):
                assert event.data.from_owner in killed
                lost += 1
    assert 0 < lost <= 6, "what the killed ones held, two each"


async def test_with_nats_restarted_in_the_middle_every_task_is_completed_once(stage: Stage) -> None:
    tasks = 60
    await stage.submit_many("restart", tasks, tenant="restart")
    ran: Counter[str] = Counter()
    async with stage.another() as (_, working):

        @working.register("restart", concurrency=4)
        async def work(task: Task) -> None:
            await asyncio.sleep(0.02)
            ran[task.id] += 1

        async with working.working():
            await until(lambda: len(ran) > 10)
            await stage.nats.kill()
            await asyncio.sleep(0.2)
            await stage.nats.start()
            await stage.all_ended("restart", tasks)
    rulings = await stage.rulings("restart")
    for events in rulings.values():
        assert [isinstance(event.data, TaskCompleted) for event in events].count(True) == 1
        assert isinstance(events[-1].data, TaskCompleted)
