"""Sessions: a task goes on from its last checkpoint, from nothing else, and for one owner only."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from nats.aio.client import Client
from pydantic import BaseModel
from sessioning import (
    PLAN,
    TENANT,
    Refunds,
    altered,
    bytes_of,
    claimed,
    envelope_of,
    in_loop,
    lost,
    tail_of,
    went_on,
    worked,
)
from stack import bodies, connected, drained, folder, nats_server, on_stream, options, until

from relight.engine.errors import ContentErased, SnapshotDamaged, TaskFenced, TaskRefused
from relight.engine.log.content_store import ContentStore
from relight.engine.policies.reassignment import submitted
from relight.engine.recorder.recorder import Recorder
from relight.engine.tasks.rulings import TaskLog, state_of
from relight.engine.tasks.task import Task
from relight.engine.tasks.working import Working
from relight.events.tasks import TaskCheckpointed, TaskStatus

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Scene:
    recorder: Recorder
    client: Client

    async def recorded(self, type: str, task: str) -> list[dict[str, Any]]:
        await drained(self.recorder)
        found = [body["data"] for body in bodies(await on_stream(self.client)) if body["type"] == type]
        return [data for data in found if task in (data.get("task"), data.get("decision"))]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene() -> AsyncIterator[Scene]:
    with folder() as spools:
        async with nats_server() as nats, connected(nats) as client:
            async with Recorder(options(nats, spools)) as recorder:
                yield Scene(recorder, client)


async def test_the_next_owner_goes_on_at_the_step_after_the_last_checkpoint_with_the_same_bytes(scene: Scene) -> None:
    first = await claimed(scene.recorder, "t-1")
    async with first.session(Refunds) as session:
        assert (session.step, session.snapshot, session.state) == (0, None, Refunds())
        assert await worked(session, until_step=10) == list(PLAN[:10])
        left = bytes_of(session.state)
    await lost(scene.recorder, "t-1")
    second = await claimed(scene.recorder, "t-1", "w-2")
    assert second.taken_over is not None
    async with second.session(Refunds) as session:
        assert (session.step, bytes_of(session.state)) == (10, left)
        assert await worked(session, until_step=20) == list(PLAN[10:])
        assert [step async for step in session.remaining(PLAN)] == []
    taken = await scene.recorded("intelligence.snapshot_taken", "t-1")
    assert [data["step"] for data in taken] == list(range(1, 21))
    assert [data["epoch"] for data in taken] == [first.epoch] * 10 + [second.epoch] * 10
    assert [data.get("previous") for data in taken] == [None, *(data["snapshot"] for data in taken[:-1])]
    done = await scene.recorded("decisions.checkpointed", "t-1")
    begun = [data["state_snapshot"]["step"] for data in done if data["checkpoint_type"] == "task_step_begun"]
    assert begun == [data["state_snapshot"]["step"] for data in done if data["checkpoint_type"] == "task_step"]
    assert begun == list(PLAN)


async def test_a_checkpoint_says_on_the_stream_what_it_rests_on(scene: Scene) -> None:
    task = await claimed(scene.recorder, "t-says")
    async with task.session(Refunds, version=3) as session:
        await worked(session, until_step=2)
        ruling = (await tail_of(scene.recorder, "t-says")).event
        assert ruling is not None
        assert isinstance(ruling.data, TaskCheckpointed)
        assert (ruling.data.step, ruling.data.snapshot) == (2, session.snapshot)
        assert session.snapshot is not None
        envelope = await envelope_of(scene.client, session.snapshot)
    assert (envelope["schema_version"], envelope["step"], envelope["last"]) == (3, 2, "step-02")
    assert envelope["state"] == Refunds.model_dump(session.state)
    assert ruling.data.state.previous is not None
    assert envelope["previous"] == ruling.data.state.previous.model_dump()


async def test_altered_bytes_are_never_gone_on_from(scene: Scene) -> None:
    task = await claimed(scene.recorder, "t-altered")
    async with task.session(Refunds) as session:
        await worked(session, until_step=3)
    before = task.state.previous
    assert session.snapshot is not None
    assert before is not None
    await altered(scene.client, session.snapshot)
    with pytest.raises(SnapshotDamaged, match="does not match its digest") as refused:
        await task.session(Refunds).__aenter__()
    assert refused.value.sha256 == session.snapshot.sha256
    async with task.session(Refunds, older=True) as older:
        assert (older.step, older.snapshot, older.damaged) == (2, before, session.snapshot)
        assert await worked(older, until_step=4) == ["step-03", "step-04"]
    async with task.session(Refunds) as session:
        assert session.state.done == list(PLAN[:4])
    assert session.snapshot is not None
    assert task.state.previous is not None
    await altered(scene.client, session.snapshot)
    await altered(scene.client, task.state.previous)
    with pytest.raises(SnapshotDamaged):
        await task.session(Refunds, older=True).__aenter__()


async def test_an_erased_snapshot_is_said_to_be_erased(scene: Scene) -> None:
    task = await claimed(scene.recorder, "t-erased")
    async with task.session(Refunds) as session:
        await worked(session, until_step=2)
    assert session.snapshot is not None
    await ContentStore(scene.client).erase(TENANT, session.snapshot.sha256, "e-7")
    with pytest.raises(ContentErased, match="by erasure e-7"):
        await task.session(Refunds, older=True).__aenter__()


class RefundsV2(BaseModel):
    steps: list[str]
    currency: str
    reason: str


class RefundsV3(BaseModel):
    steps: tuple[str, ...]
    currency: str
    counted: int


def to_v2(state: dict[str, Any]) -> dict[str, Any]:
    return {"steps": state["done"], "currency": "EUR"}


def to_v3(state: dict[str, Any]) -> dict[str, Any]:
    return state | {"counted": len(state["steps"])}


async def test_a_state_of_an_older_version_is_migrated_one_version_at_a_time(scene: Scene) -> None:
    task = await claimed(scene.recorder, "t-schema")
    async with task.session(Refunds) as first:
        await worked(first, until_step=2)
    with pytest.raises(TaskRefused, match="no migration from 2"):
        await task.session(RefundsV3, version=3, migrate={1: to_v2}).__aenter__()
    async with task.session(RefundsV3, version=3, migrate={1: to_v2, 2: to_v3}) as third:
        assert third.state == RefundsV3(steps=("step-01", "step-02"), currency="EUR", counted=2)
        assert third.step == 2
        await third.checkpoint(third.state.model_copy(update={"counted": 7}))
    async with task.session(RefundsV3, version=3) as third:
        assert (third.step, third.state.counted) == (3, 7)
    with pytest.raises(TaskRefused, match="version 3, this code knows 2"):
        await task.session(RefundsV2, version=2, migrate={1: to_v2}).__aenter__()
    with pytest.raises(TaskRefused, match="no RefundsV2 of version 3"):
        await task.session(RefundsV2, version=3).__aenter__()
    with pytest.raises(TaskRefused, match="raise `version`"):
        task.session(RefundsV2, version=2, migrate={2: to_v3})


async def test_of_two_that_resume_at_once_one_goes_on_and_the_other_is_fenced(scene: Scene) -> None:
    first = await claimed(scene.recorder, "t-two")
    async with first.session(Refunds) as slow:
        await worked(slow, until_step=4)
        await lost(scene.recorder, "t-two")
        second = await claimed(scene.recorder, "t-two", "w-2")
        async with second.session(Refunds) as session:
            with pytest.raises(TaskFenced, match="not w-1's under epoch"):
                await slow.checkpoint(went_on(slow.state, "lost"))
            assert slow.step == 4, "nothing was written"
            await worked(session, until_step=6)
        with pytest.raises(TaskFenced):
            await slow.checkpoint(went_on(slow.state, "lost"))
    with pytest.raises(TaskFenced):
        await first.session(Refunds).__aenter__()
    async with second.session(Refunds) as session:
        assert session.state.done == list(PLAN[:6])


async def test_of_two_sessions_of_one_owner_the_slower_one_is_fenced(scene: Scene) -> None:
    task = await claimed(scene.recorder, "t-same")
    async with task.session(Refunds) as one, task.session(Refunds) as other:
        done = await asyncio.gather(
            one.checkpoint(Refunds(done=["one"])), other.checkpoint(Refunds(done=["other"])), return_exceptions=True
        )
        assert sorted(type(result).__name__ for result in done) == ["NoneType", "TaskFenced"]
        [refused] = [result for result in done if result is not None]
        assert "another session of this owner" in str(refused)
    async with task.session(Refunds) as session:
        assert session.state.done == [["one"], ["other"]][done.index(refused) == 0]


async def test_a_checkpoint_that_is_cancelled_anywhere_leaves_a_session_that_goes_on(scene: Scene) -> None:
    task = await claimed(scene.recorder, "t-cancelled")
    async with task.session(Refunds) as session:
        for n in range(30):
            going = asyncio.ensure_future(session.checkpoint(Refunds(done=[f"cancelled-{n}"])))
            for _ in range(n):
                await asyncio.sleep(0.0003)
            going.cancel()
            await asyncio.wait([going])
        await session.checkpoint(Refunds(done=["last"]))
    async with task.session(Refunds) as session:
        assert session.state.done == ["last"]
    await lost(scene.recorder, "t-cancelled")


async def test_a_plan_that_cannot_be_gone_on_with_is_refused(scene: Scene) -> None:
    task = await claimed(scene.recorder, "t-plan")

    async def charge(state: Refunds) -> Refunds:
        return went_on(state, "charge")

    async def mail(state: Refunds) -> Refunds:
        return went_on(state, "mail")

    async with task.session(Refunds) as session:
        with pytest.raises(TaskRefused, match="step charge is in the plan twice"):
            session.remaining([charge, mail, charge])
        with pytest.raises(TaskRefused, match="step 1 of the plan has no name"):
            session.remaining([charge, lambda state: state])
        async for step in session.remaining([charge, mail]):
            await session.checkpoint(await step(session.state))
    async with task.session(Refunds) as session:
        assert session.state.done == ["charge", "mail"]
        with pytest.raises(TaskRefused, match="after step 2, mail, which is charge in this plan"):
            session.remaining([mail, charge])
        with pytest.raises(TaskRefused, match="the plan has 1 steps, the last checkpoint is after 2"):
            session.remaining([charge])
        assert [step async for step in session.remaining(["charge", "mail", "more"])] == ["more"]
    with pytest.raises(TaskRefused, match="is over"):
        await session.checkpoint(Refunds())


async def test_steps_without_a_checkpoint_of_their_own_are_covered_by_the_next_one(scene: Scene) -> None:
    task = await claimed(scene.recorder, "t-covered")
    async with task.session(Refunds) as session:
        async for step in session.remaining(PLAN[:6]):
            if step == "step-05":
                await session.checkpoint(Refunds(done=["five"]))
                break
    async with task.session(Refunds) as session:
        assert session.step == 5
        assert [step async for step in session.remaining(PLAN[:6])] == ["step-06"]


async def test_a_step_and_an_effect_of_the_same_name_count_once(scene: Scene) -> None:
    task = await claimed(scene.recorder, "t-effect")
    async with task.session(Refunds) as session:
        async for step in session.remaining(["charge"]):
            async with task.effect("charge") as key:
                assert key == task.key("charge")
            await session.checkpoint(went_on(session.state, step))
    done = await scene.recorded("decisions.checkpointed", "t-effect")
    assert [data["checkpoint_type"] for data in done] == ["task_step_begun", "task_step"]


class Measured(BaseModel):
    value: float = 0.0
    count: int = 0


async def test_a_state_that_would_not_come_back_the_same_is_refused_at_its_checkpoint(scene: Scene) -> None:
    task = await claimed(scene.recorder, "t-nan")
    async with task.session(Measured) as session:
        for state in (Measured(value=float("nan")), Measured(count=2**70)):
            with pytest.raises(TaskRefused, match="cannot be written as JSON and read again"):
                await session.checkpoint(state)
        with pytest.raises(TaskRefused, match="wants a Measured, not a Refunds"):
            await session.checkpoint(Refunds())  # type: ignore[arg-type]
        exact = Measured(value=0.1 + 0.2, count=2**63)
        await session.checkpoint(exact)
    async with task.session(Measured) as session:
        assert session.state == exact
    with pytest.raises(TaskRefused, match="give the session `initial`"):
        await (await claimed(scene.recorder, "t-initial")).session(RefundsV3).__aenter__()


async def test_a_worker_that_failed_half_way_is_followed_by_one_that_goes_on_from_there(scene: Scene) -> None:
    working, given = Working(scene.recorder, dispatches=True), list[tuple[int, str]]()

    @working.register("worked", backoff_s=0.01)
    async def work(task: Task) -> int:
        async with task.session(Refunds) as session:
            async for step in session.remaining(PLAN):
                if (task.attempt, step) == (1, "step-06"):
                    raise RuntimeError("not today")
                given.append((task.attempt, step))
                await session.checkpoint(went_on(session.state, step))
            return len(session.state.done)

    log = TaskLog(scene.recorder)
    ruling = submitted("t-worked", "worked", now=scene.recorder.clock.now())
    async with working.working():
        await in_loop(scene.recorder, log.submit(TENANT, ruling))

        async def completed() -> bool:
            state = state_of(await tail_of(scene.recorder, "t-worked"))
            return state is not None and state.status is TaskStatus.COMPLETED

        await until(completed, "the task is completed")
    assert given == [(1, step) for step in PLAN[:5]] + [(2, step) for step in PLAN[5:]]
