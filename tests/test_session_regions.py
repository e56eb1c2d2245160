"""An agent is killed in one region and goes on in another; each region has a copy of its own of what it knew."""

import asyncio
import json
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from clusters import STRONG, Member, cluster, declare, joined, settled
from nats.aio.client import Client
from sessioning import PLAN, TENANT, Refunds, altered, bytes_of, claimed, in_loop, lost, went_on, worked
from stack import drained, folder, options, projecting, until

from relight.engine.errors import SnapshotDamaged
from relight.engine.log.buckets import regional_bucket
from relight.engine.log.content import ContentReader
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.replicating import Replicator
from relight.engine.tables.pools import PoolOptions, open_pool
from relight.engine.tables.queries import run
from relight.engine.tasks.sessions import reading
from relight.engine.tasks.sessions.envelope import decoded
from relight.engine.tasks.sessions.reading import read_snapshot

pytestmark = pytest.mark.asyncio(loop_scope="module")
REGIONS = ("eu", "us", "ap")
CHILD = Path(__file__).with_name("session_child.py")


@dataclass
class Fleet:
    members: dict[str, Member]
    recorders: dict[str, Recorder]
    replicators: dict[str, Replicator]
    client: Client
    folder: Path

    async def agent(self, region: str, task: str, hangs_in: str = "-") -> asyncio.subprocess.Process:
        arguments = (self.members[region].url, str(self.folder / f"agent-{region}"), region, task, hangs_in)
        return await asyncio.create_subprocess_exec(
            sys.executable, str(CHILD), *arguments, stdout=asyncio.subprocess.PIPE
        )

    async def replicated(self, *snapshots: str) -> None:
        """All regions have them, and have said so."""

        async def everywhere() -> bool:
            for region, part in self.replicators.items():
                reader = ContentReader(self.client.jetstream(timeout=2), regional_bucket(region))
                for snapshot in snapshots:
                    if part.waits_for(TENANT, snapshot) or await reader.look_up(TENANT, snapshot) is None:
                        return False
            return True

        await until(everywhere, "every region has its copy")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet() -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        home = stack.enter_context(folder())
        servers = await stack.enter_async_context(cluster(STRONG, STRONG, STRONG, regions=REGIONS))
        members = dict(zip(REGIONS, servers, strict=True))
        client = await stack.enter_async_context(joined(servers[-1]))
        await declare(client)
        await settled(client)
        found = Fleet(members, {}, {}, client, home)
        for region, member in members.items():
            own: Any = options(member, home / f"spool-{region}", region=region)  # type: ignore[arg-type]
            recorder = await stack.enter_async_context(Recorder(own))
            found.recorders[region] = recorder
            found.replicators[region] = Replicator(recorder, region)
            running = recorder.in_loop(found.replicators[region].run())
            stack.callback(running.cancel)
        yield found


async def test_an_agent_that_is_killed_half_way_goes_on_in_another_region_at_the_step_after(
    fleet: Fleet, database: str
) -> None:
    task = "t-killed"
    first = await fleet.agent("eu", task, hangs_in="step-11")
    began, hung = [json.loads(line) for line in await _lines(first, 2)]
    assert began["at"] == 0
    first.send_signal(signal.SIGKILL)
    await first.wait()
    await lost(fleet.recorders["us"], task)
    second = await fleet.agent("us", task)
    went_on_, ended = [json.loads(line) for line in await _lines(second, 2)]
    assert await second.wait() == 0
    assert went_on_["at"] == 10
    assert went_on_["state"] == hung["state"], "byte by byte"
    assert went_on_["epoch"] > began["epoch"]
    state = Refunds()
    for step in PLAN:
        state = went_on(state, step)
    assert (ended["ended"], ended["state"]) == (20, bytes_of(state).hex())

    # What the killed one still had in its spool comes with the next process of its home.
    async with Recorder(options(fleet.members["eu"], fleet.folder / "agent-eu")) as heir:  # type: ignore[arg-type]
        await drained(heir)
        async with projecting(fleet.members["eu"], database) as projected:  # type: ignore[arg-type]
            async with await open_pool(database, PoolOptions(size=2)) as pool:

                async def twice(name: str) -> dict[str, list[int]]:
                    await projected.caught_up()
                    rows: list[Any] = await run(pool, name, tenant=TENANT)
                    return {row.step: list(row.epochs) for row in rows if row.task == task}

                epochs = [began["epoch"], went_on_["epoch"]]
                await until(lambda: twice("tasks.steps_done_twice"), "what was done twice is known")
                assert await twice("tasks.steps_done_twice") == {"charge in step-11": epochs}
                assert await twice("tasks.steps_begun_twice") == {"step-11": epochs}

                snapshots: list[Any] = await run(pool, "intelligence.of_task", tenant=TENANT, arguments={"task": task})
                assert [row.step for row in snapshots] == list(range(1, 21))
                assert [row.source_region for row in snapshots] == ["eu"] * 10 + ["us"] * 10
                await fleet.replicated(*(row.snapshot for row in snapshots))
                for recorder in fleet.recorders.values():
                    await drained(recorder)
                await projected.caught_up()
                snapshots = await run(pool, "intelligence.of_task", tenant=TENANT, arguments={"task": task})
                assert {row.replicated_to for row in snapshots} == {("ap", "eu", "us")}
                for row in (snapshots[0], snapshots[-1]):
                    asked = {"snapshot": row.snapshot}
                    proofs: list[Any] = await run(pool, "intelligence.proven_in", tenant=TENANT, arguments=asked)
                    assert {proof.target_region for proof in proofs} == set(REGIONS)
                    assert {proof.verified_checksum for proof in proofs} == {row.checksum}
                await projected.digests_agree()


async def test_a_shared_copy_that_was_altered_is_made_good_by_the_regions_own(fleet: Fleet) -> None:
    recorder = fleet.recorders["eu"]
    task = await claimed(recorder, "t-altered")
    async with task.session(Refunds) as session:
        await worked(session, until_step=3)
    assert session.snapshot is not None
    await drained(recorder)
    await fleet.replicated(session.snapshot.sha256)
    await altered(fleet.client, session.snapshot)
    async with task.session(Refunds) as again:
        assert (again.step, again.state) == (3, session.state)
    for region in REGIONS:
        await altered(fleet.client, session.snapshot, regional_bucket(region))
    with pytest.raises(SnapshotDamaged):
        await task.session(Refunds).__aenter__()


async def test_a_region_whose_disk_was_lost_has_its_own_copies_again(fleet: Fleet) -> None:
    recorder = fleet.recorders["eu"]
    task = await claimed(recorder, "t-wiped")
    async with task.session(Refunds) as session:
        await worked(session, until_step=4)
    assert session.snapshot is not None
    await drained(recorder)
    await fleet.replicated(session.snapshot.sha256)
    member, bucket = fleet.members["us"], regional_bucket("us")
    member.stop()
    shutil.rmtree(member.folder / member.name)
    member.start()
    copied = fleet.replicators["us"].copied
    await until(lambda: fleet.replicators["us"].copied >= copied + 4, "they are copied again")
    await fleet.replicated(session.snapshot.sha256)
    body = await ContentReader(fleet.client.jetstream(timeout=5), bucket).read(TENANT, session.snapshot.sha256)
    assert decoded(body).state == session.state.model_dump(mode="json")


async def test_with_two_regions_lost_the_third_still_reads_its_own_copy(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "REQUEST_TIMEOUT_S", 1.0)
    recorder = fleet.recorders["ap"]
    task = await claimed(recorder, "t-alone")
    async with task.session(Refunds) as session:
        await worked(session, until_step=2)
    assert session.snapshot is not None
    await drained(recorder)
    await fleet.replicated(session.snapshot.sha256)
    for region in ("eu", "us"):
        fleet.members[region].stop()
    own = ContentReader(fleet.client.jetstream(timeout=5), regional_bucket("ap"), direct=True)
    await until(lambda: own.read(TENANT, session.snapshot.sha256), "its own bucket answers")  # type: ignore[union-attr]
    body = await in_loop(recorder, read_snapshot(recorder, TENANT, session.snapshot))
    assert decoded(body).state == session.state.model_dump(mode="json")
    for region in ("eu", "us"):
        fleet.members[region].start()


async def _lines(process: asyncio.subprocess.Process, count: int) -> list[bytes]:
    assert process.stdout is not None
    async with asyncio.timeout(30):
        found = [await process.stdout.readline() for _ in range(count)]
    assert all(found), "it ended early"
    return found
