"""Contents: stored beside the log, copied to the archive, and erased so that nothing of them can be read."""

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from folding import event_id
from nats.aio.client import Client
from stack import NOW, connected, drained, encoded, nats_server, options, until

from relight.engine.archive.contents import ContentKeeper, Reference, read_archived, references
from relight.engine.archive.store import FolderStore
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.errors import ContentErased, ContentError
from relight.engine.log.content import BUCKET_STREAM, CHUNKS, fetch_content
from relight.engine.log.content_store import ContentStore
from relight.engine.log.reader import Message
from relight.engine.recorder.recorder import Recorder
from relight.engine.spool.spool import SpooledContent
from relight.events.decisions import DecisionCheckpointed, DecisionTaken
from relight.events.values import Content


def content(body: bytes, tenant: str = "acme") -> SpooledContent:
    return SpooledContent(tenant, hashlib.sha256(body).hexdigest(), body, 0)


def value(body: bytes) -> Content:
    return Content(sha256=hashlib.sha256(body).hexdigest(), size_bytes=len(body))


def message(body: bytes, *, tenant: str = "acme", n: int = 1) -> Message:
    event = DecisionCheckpointed(decision="d", checkpoint_type="x", content=value(body))
    subject, encoded_ = encoded(event, id=event_id(n, n), time=NOW, pseq=n, tenant=tenant)
    return Message(n, 0, subject, encoded_)


@dataclass
class Stage:
    nats: EmbeddedNats
    client: Client
    store: ContentStore
    archive: FolderStore

    def keeper(self) -> ContentKeeper:
        return ContentKeeper(self.client.jetstream(timeout=5), self.archive)

    def on_disk(self, text: bytes) -> int:
        return sum(path.read_bytes().count(text) for path in self.nats.store.rglob("*.blk"))


@asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[Stage]:
    async with nats_server(sync_always=False) as nats, connected(nats) as client:
        yield Stage(nats, client, ContentStore(client), FolderStore(folder / "archive"))


def test_every_content_that_an_event_refers_to_is_found_wherever_it_stands() -> None:
    taken = DecisionTaken(
        decision="d",
        decision_type="t",
        request=value(b"a"),
        context={"files": [{"sha256": value(b"b").sha256, "size_bytes": 1}], "no": {"sha256": "x", "size_bytes": 1}},
    )
    subject, body = encoded(taken, id=event_id(1), time=NOW, tenant="a.b")
    found = {Reference("a.b", value(body).sha256) for body in (b"a", b"b")}
    assert references(Message(1, 0, subject, body)) == found
    assert {reference.name.split("/")[1] for reference in found} == {"a%2Eb"}
    assert not references(Message(1, 0, subject, b'{"size_bytes": 1'))
    assert not references(Message(1, 0, subject, b'[{"size_bytes": 1}]'))


async def test_contents_are_stored_many_at_once_and_none_twice(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        bodies = [b"", b"x", *(os.urandom(size) for size in (1, 128 * 1024, 128 * 1024 + 1, 5 << 20))]
        many = [content(body) for body in [*bodies, *(b"small %d" % n for n in range(1_200))]]
        assert await here.store.put(many) == len(many)
        assert await here.store.put(many[:20]) == 0
        for body in bodies:
            assert await fetch_content(here.client.jetstream(), "acme", value(body)) == body
        # Other clients of the object store read them as their own.
        bucket = await here.client.jetstream().object_store("content")
        assert (await bucket.get(f"acme/{value(bodies[-1]).sha256}")).data == bodies[-1]
        with pytest.raises(ContentError, match="not in the store"):
            await fetch_content(here.client.jetstream(), "other", value(b"x"))


async def test_content_of_an_earlier_release_is_read_and_erased(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        js, body = here.client.jetstream(), b"EARLIER-RELEASE" * 20_000
        await (await js.create_object_store("content")).put(f"acme/{value(body).sha256}", body)
        assert await here.store.put([content(body), content(b"new")]) == 1
        assert await fetch_content(js, "acme", value(body)) == body
        assert await here.store.erase("acme", value(body).sha256, "e-1") == len(body)
        assert here.on_disk(b"EARLIER-RELEASE") == 0


async def test_what_is_erased_is_nowhere_in_the_server_and_does_not_come_back(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        js, secret = here.client.jetstream(), content(b"SECRET!!" * 30_000)
        await here.store.put([secret, content(secret.body, "other"), content(b"else")])
        # A writer that was killed before it said what the chunks are.
        orphan = f"{CHUNKS}{(await here.store.reader.look_up('acme', secret.sha256)).nuid.partition('.')[0]}.0"  # type: ignore[union-attr]
        await js.publish(orphan, b"SECRET!!")
        assert await here.store.erase("acme", secret.sha256, "e-1") == len(secret.body) + 8
        assert await here.store.erase("acme", secret.sha256, "e-2") == 0
        assert here.on_disk(b"SECRET!!") == 30_000, "the other tenant's alone"
        assert await here.store.put([secret]) == 0
        with pytest.raises(ContentErased, match="erased by erasure e-1"):
            await fetch_content(js, "acme", value(secret.body))
        assert await fetch_content(js, "other", value(secret.body)) == secret.body
        # One that never came here is kept from coming.
        assert await here.store.erase("acme", content(b"late").sha256, "e-1") == 0
        assert await here.store.put([content(b"late")]) == 0
        assert await here.store.reader.names("acme") == [content(b"else").sha256]


async def test_an_erasure_that_was_cut_short_is_completed(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        secret = content(b"SECRET!!" * 30_000)
        await here.store.put([secret])
        await here.store._mark_erased(
            "acme", secret.sha256, "e-1", await here.store.reader.look_up("acme", secret.sha256)
        )
        assert here.on_disk(b"SECRET!!") > 0
        assert await here.store.erase("acme", secret.sha256, "e-1") == len(secret.body)
        assert here.on_disk(b"SECRET!!") == 0


@pytest.mark.parametrize("size", [1_000, 5 << 20], ids=["in a batch", "singly"])
async def test_content_erased_while_it_is_on_its_way_does_not_come(tmp_path: Path, size: int) -> None:
    async with stage(tmp_path) as here:
        secret = content(b"S" * size)
        await here.store.put([content(b"else")])
        looked_up = here.store.known

        async def look_then_erase(names: Any) -> Any:
            there = await looked_up(names)
            await here.store.erase("acme", secret.sha256, "e-1")
            return there

        here.store.known = look_then_erase  # type: ignore[method-assign]
        assert await here.store.put([secret, content(b"more")]) == 1
        left = [found async for found in here.store.reader.messages(f"{CHUNKS}>")]
        assert sorted(found.data or b"" for found in left) == [b"else", b"more"]


async def test_what_waits_in_a_spool_is_not_stored_after_its_erasure(tmp_path: Path, spools: Path) -> None:
    async with nats_server() as nats, connected(nats) as client:
        store = ContentStore(client)
        await nats.stop()
        with Recorder(options(nats, spools)) as recorder:
            held = recorder.content(b"waits in the spool")
            recorder.record(DecisionTaken(decision="d", decision_type="t", request=held))
            recorder.stop(deadline_s=0.5)
        await nats.start()
        await until(lambda: client.is_connected)
        await store.erase("acme", held.sha256, "e-1")
        with Recorder(options(nats, spools)) as recorder:
            await drained(recorder)
            recorder.record(DecisionTaken(decision="e", decision_type="t", request=recorder.content(b"another")))
            await drained(recorder)
        with pytest.raises(ContentErased):
            await fetch_content(client.jetstream(), "acme", held)
        assert (await client.jetstream().stream_info(BUCKET_STREAM)).state.messages == 3, "a mark, a chunk, its name"


async def test_the_archive_gets_what_sealed_events_refer_to_and_says_what_it_cannot_get(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        bodies = [os.urandom(5_000) for _ in range(100)]
        await here.store.put([content(body) for body in [*bodies, b"erased"]])
        await here.store.erase("acme", content(b"erased").sha256, "e-1")
        messages = [message(body, n=n) for n, body in enumerate([*bodies, bodies[0], b"erased", b"lost"], 1)]
        keeper = here.keeper()
        kept = await keeper.keep(messages)
        lost = Reference("acme", content(b"lost").sha256)
        assert (kept.copied, kept.present, kept.erased, kept.missing) == (100, 0, 1, (lost,))
        assert kept.copied_bytes == 500_000
        again = await keeper.keep(messages)
        assert (again.copied, again.present, again.erased, again.missing) == (0, 101, 0, (lost,))
        # Another archiver finds them there, and mends what is damaged.
        await here.archive.replace(Reference("acme", content(bodies[3]).sha256).name, b"damaged")
        other = await here.keeper().keep(messages)
        assert (other.copied, other.present, other.erased) == (1, 99, 1)
        for body in bodies:
            assert await read_archived(here.archive, Reference("acme", content(body).sha256)) == body


async def test_content_erased_while_it_is_copied_to_the_archive_is_not_left_there(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        secret = content(b"secret")
        await here.store.put([secret])
        create = here.archive.create

        async def erase_then_create(name: str, body: bytes) -> None:
            await here.store.erase("acme", secret.sha256, "e-1")
            await here.archive.delete(name)
            await create(name, body)

        here.archive.create = erase_then_create  # type: ignore[method-assign]
        assert (await here.keeper().keep([message(b"secret")])).erased == 1
        assert await here.archive.names("contents/") == []
