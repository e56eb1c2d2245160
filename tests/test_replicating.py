"""Each region's own copies of snapshots: made, proven, made again where they were lost, and erased with the rest."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from nats.aio.client import Client
from sessioning import TENANT, Refunds, altered, claimed, worked
from stack import bodies, connected, drained, folder, nats_server, on_stream, options, until

from relight.engine import scope
from relight.engine.archive.contents import ContentKeeper, Reference, read_archived
from relight.engine.archive.store import FolderStore
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.erasure.demand import Demand
from relight.engine.erasure.erasing import Erasing, Places
from relight.engine.errors import ContentErased, Unreachable
from relight.engine.log.buckets import REGION, SHARED, Bucket, regional_bucket, regional_buckets
from relight.engine.log.content import ContentReader
from relight.engine.log.content_store import ContentStore
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions import replicating
from relight.engine.regions.replicating import Replicator
from relight.events.intelligence import IntelligenceSnapshotTaken
from relight.events.values import Content

pytestmark = pytest.mark.asyncio(loop_scope="module")
REGIONS = (f"r{n}" for n in count())
"""Each test has a region of its own, and so a bucket: all of them see all snapshots."""


@dataclass
class Scene:
    nats: EmbeddedNats
    client: Client
    recorder: Recorder
    folder: Path

    async def takes(self, *states: bytes, stored: bool = True) -> list[Content]:
        """Snapshots of these bytes."""
        found = [Content(sha256=hashlib.sha256(state).hexdigest(), size_bytes=len(state)) for state in states]
        with scope.entered(tenant=TENANT):
            for content, state in zip(found, states, strict=True):
                if stored:
                    assert self.recorder.content(state) == content
                self.recorder.record(
                    IntelligenceSnapshotTaken(
                        snapshot=content.sha256, snapshot_type="session", source_region="eu", content=content
                    )
                )
        await drained(self.recorder)
        return found

    @asynccontextmanager
    async def replicating(self, region: str) -> AsyncIterator[Replicator]:
        """One region's, until the `with` ends."""
        async with Recorder(options(self.nats, self.folder / f"spool-{region}", region=region)) as recorder:
            part = Replicator(recorder, region)
            running = recorder.in_loop(part.run())
            try:
                yield part
            finally:
                running.cancel()
                await drained(recorder)

    async def said(self, region: str, content: Content) -> list[str]:
        """What the region recorded of its copy, in order."""
        return [
            body["type"].removeprefix("intelligence.replication_")
            for body in bodies(await on_stream(self.client))
            if body["data"].get("target_region") == region and body["data"]["snapshot"] == content.sha256
        ]

    async def read(self, bucket: Bucket, content: Content) -> bytes:
        return await ContentReader(self.client.jetstream(timeout=5), bucket).read(TENANT, content.sha256)

    async def caught_up(self, part: Replicator) -> None:
        await until(lambda: part.failure is None and not part.waiting, "all is copied")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene() -> AsyncIterator[Scene]:
    with folder() as home:
        async with nats_server(sync_always=False) as nats, connected(nats) as client:
            async with Recorder(options(nats, home / "spool")) as recorder:
                yield Scene(nats, client, recorder, home)


async def test_a_snapshot_is_copied_into_the_regions_own_bucket_and_proven_there(scene: Scene) -> None:
    region = next(REGIONS)
    task = await claimed(scene.recorder, "t-copied")
    async with scene.replicating(region) as part, task.session(Refunds) as session:
        await worked(session, until_step=3)
        assert session.snapshot is not None
        last = session.snapshot
        await drained(scene.recorder)
        await until(lambda: part.proven >= 3, "three are proven")
        await scene.caught_up(part)
    assert await scene.read(regional_bucket(region), last) == await scene.read(SHARED, last)
    assert await scene.said(region, last) == ["started", "completed"]
    [done] = [
        body
        for body in bodies(await on_stream(scene.client))
        if body["type"] == "intelligence.replication_completed"
        and (body["data"]["snapshot"], body["region"]) == (last.sha256, region)
    ]
    assert done["data"]["verified_sha256"] == last.sha256
    info = await scene.client.jetstream().stream_info(regional_bucket(region).stream)
    assert info.config.num_replicas == 1
    assert (info.config.metadata or {})[REGION] == region
    assert info.config.placement is not None
    assert info.config.placement.tags == [f"region:{region}"]


async def test_nothing_is_skipped_over_restarts_and_nothing_is_said_twice(scene: Scene) -> None:
    region = next(REGIONS)
    before = await scene.takes(b"first", b"second")
    async with scene.replicating(region) as part:
        await scene.caught_up(part)
    meanwhile = await scene.takes(b"third", b"fourth")
    for _ in range(2):
        async with scene.replicating(region) as part:
            await scene.caught_up(part)
            known = part.counts()
    assert known["copied"] == known["proven"] == 0, "all was done before"
    for content in (*before, *meanwhile):
        assert await scene.said(region, content) == ["started", "completed"]
        assert hashlib.sha256(await scene.read(regional_bucket(region), content)).hexdigest() == content.sha256


async def test_a_bucket_whose_disk_was_lost_is_filled_and_proven_again(scene: Scene) -> None:
    region = next(REGIONS)
    [content] = await scene.takes(b"kept by two regions")
    async with scene.replicating(region) as part:
        await scene.caught_up(part)
    await scene.client.jetstream().purge_stream(regional_bucket(region).stream)
    async with scene.replicating(region) as part:
        await scene.caught_up(part)
        assert part.copied >= 1
    assert await scene.read(regional_bucket(region), content) == b"kept by two regions"
    assert await scene.said(region, content) == ["started", "completed"] * 2


async def test_a_copy_that_came_out_wrong_is_never_said_to_be_proven_and_is_made_again(scene: Scene) -> None:
    region = next(REGIONS)
    bucket = regional_bucket(region)
    [content] = await scene.takes(b"step-01 and what follows")
    store = ContentStore(scene.client, bucket)
    await store.put([_Body(content.sha256, b"step-01 and what follows")])
    await altered(scene.client, content, bucket)
    async with scene.replicating(region) as part:
        await until(lambda: part.failed, "what was read back is other bytes")
        await scene.caught_up(part)
    assert await scene.said(region, content) == ["started", "failed", "completed"]
    assert await scene.read(bucket, content) == b"step-01 and what follows"


async def test_what_the_shared_bucket_lost_is_taken_from_another_regions_copy(scene: Scene, tmp_path: Path) -> None:
    first, second = next(REGIONS), next(REGIONS)
    [content] = await scene.takes(b"step-01 is all that there was")
    async with scene.replicating(first) as part:
        await scene.caught_up(part)
    await altered(scene.client, content)
    async with scene.replicating(second) as part:
        await scene.caught_up(part)
    assert await scene.said(second, content) == ["started", "completed"]
    assert await scene.read(regional_bucket(second), content) == b"step-01 is all that there was"
    archive = FolderStore(tmp_path / "archive")
    keeper = ContentKeeper(scene.client.jetstream(timeout=5), archive)
    await keeper.keep(await on_stream(scene.client))
    assert await read_archived(archive, Reference(TENANT, content.sha256)) == b"step-01 is all that there was"


async def test_content_that_is_nowhere_is_tried_again_and_recorded_as_failed_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    region = next(REGIONS)
    monkeypatch.setattr(replicating, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(replicating, "LOOK_EVERY_S", 0.01)
    [content] = await scene.takes(b"never stored", stored=False)
    async with scene.replicating(region) as part:
        await until(lambda: part.failed >= 2, "it is tried again")
        assert part.waiting == 1
        await ContentStore(scene.client).put([_Body(content.sha256, b"never stored")])
        await scene.caught_up(part)
    assert await scene.said(region, content) == ["started", "failed", "completed"]


async def test_erased_content_is_gone_from_the_regions_own_buckets_too_and_stays_away(scene: Scene) -> None:
    region, later = next(REGIONS), next(REGIONS)
    secret, other = b"ALICE-SECRET" * 50, b"OTHER" * 50
    [held, kept] = await scene.takes(secret, other)
    async with scene.replicating(region) as part:
        await scene.caught_up(part)
    assert _on_disk(scene.nats, secret) >= 2
    erased = await _erase(scene.client, held)
    assert erased.regional >= 1
    assert _on_disk(scene.nats, secret) == 0
    with pytest.raises(ContentErased):
        await scene.read(regional_bucket(region), held)
    assert await scene.read(regional_bucket(region), kept) == other
    for again in (region, later):
        async with scene.replicating(again) as part:
            await scene.caught_up(part)
            assert part.erased == (again == later), "the first one knew it by its own mark"
    assert _on_disk(scene.nats, secret) == 0
    assert await scene.said(region, held) == ["started", "completed"]
    assert await scene.said(later, held) == ["started", "failed"]


async def test_an_erasure_is_not_complete_while_a_region_is_away(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    region = next(REGIONS)
    [held] = await scene.takes(b"BOB-SECRET" * 50)
    async with scene.replicating(region) as part:
        await scene.caught_up(part)
    recorded: list[Any] = []
    erasing = Erasing(_demand(held), Places(client=scene.client, archives=(), spools=None), lambda *_: None)
    await erasing.find()
    look_up = ContentReader.look_up

    async def away(self: ContentReader, tenant: str, sha256: str) -> Any:
        if self._bucket == regional_bucket(region):
            raise TimeoutError
        return await look_up(self, tenant, sha256)

    with monkeypatch.context() as patched:
        patched.setattr(ContentReader, "look_up", away)
        with pytest.raises(Unreachable, match=f"region {region} is away"):
            await erasing.erase(recorded.extend)
    assert recorded == []
    assert (await _erase(scene.client, held)).regional == 1
    assert _on_disk(scene.nats, b"BOB-SECRET" * 50) == 0


async def test_regions_whatever_they_are_called_have_buckets_of_their_own(scene: Scene) -> None:
    names = ("eu-west-1", "eu_west_1", "eu.west.1", "zürich")
    buckets = {regional_bucket(name).name for name in names}
    assert len(buckets) == len(names)
    for name in names:
        await ContentStore(scene.client, regional_bucket(name)).declare()
    found = await regional_buckets(scene.client.jetstream(timeout=5))
    assert {bucket.region for bucket in found} >= set(names)
    assert SHARED not in found


@dataclass(frozen=True)
class _Body:
    sha256: str
    body: bytes
    tenant: str = TENANT


def _demand(content: Content) -> Demand:
    return Demand(tenant=TENANT, decided_by="dpo", reason="asked", contents=(content.sha256,))


async def _erase(client: Client, content: Content) -> Any:
    erasing = Erasing(_demand(content), Places(client=client, archives=(), spools=None), lambda *_: None)
    await erasing.find()
    return await erasing.erase(lambda events: None)


def _on_disk(nats: EmbeddedNats, text: bytes) -> int:
    return sum(path.read_bytes().count(text) for path in nats.store.rglob("*.blk"))
