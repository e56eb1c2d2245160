"""Folders and object stores: what both promise an archive, and what is said where a store does not keep it."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from archives import NOW, Publishers, sealed, signing_key
from s3 import BUCKET, s3_front, s3_server

from relight.engine.archive.clearing import clear_leftovers
from relight.engine.archive.models import manifest_name
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.sealing import add_segment
from relight.engine.archive.segment import seal
from relight.engine.archive.store import ArchiveStore, FolderStore, open_store
from relight.engine.audit.archive import check_archive
from relight.engine.errors import ArchiveConflict, ArchiveDamaged, ArchiveError, ArchiveUnreachable, SettingsError


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server with an empty bucket, and the variables that lead to it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with s3_server() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        yield url


@pytest.fixture(params=["folder", "objects"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArchiveStore:
    if request.param == "folder":
        return open_store(f"file://{tmp_path}/an%20archive")
    request.getfixturevalue("s3")
    return open_store(f"s3://{BUCKET}/a/b")


async def test_what_is_there_is_never_overwritten_by_creating_it(store: ArchiveStore) -> None:
    await store.create("segments/1.json", b"one")
    with pytest.raises(ArchiveConflict, match=r"segments/1\.json is there already"):
        await store.create("segments/1.json", b"two")
    assert await store.read("segments/1.json") == b"one"
    await store.replace("segments/1.json", b"three")
    assert await store.read("segments/1.json") == b"three"


async def test_names_are_those_below_a_prefix_in_order(store: ArchiveStore) -> None:
    assert await store.is_empty()
    assert await store.names("segments/") == []
    for name in ("segments/3.json", "segments/1.json", "segments/2.json", "contents/acme/x.zst", "archive.json"):
        await store.create(name, name.encode())
    assert not await store.is_empty()
    assert await store.names("segments/") == ["segments/1.json", "segments/2.json", "segments/3.json"]
    assert await store.names("segments/", after="segments/1.json") == ["segments/2.json", "segments/3.json"]
    assert await store.names("segments/2") == ["segments/2.json"]
    assert len(await store.names("")) == 5
    assert [name async for name in store.each("contents/")] == ["contents/acme/x.zst"]
    assert await store.has("archive.json")
    assert not await store.has("segments")
    assert not await store.has("archive")
    await store.delete("segments/2.json")
    await store.delete("segments/2.json")
    with pytest.raises(ArchiveDamaged, match=r"segments/2\.json is not there"):
        await store.read("segments/2.json")
    written_at = await store.written_at("archive.json")
    assert written_at is not None
    assert datetime.now(UTC) - written_at < timedelta(minutes=5)
    assert await store.written_at("segments/2.json") is None


async def test_of_two_archivers_one_seals_a_number_and_what_the_other_left_is_cleared(store: ArchiveStore) -> None:
    publishers = Publishers()
    (first,) = await sealed(store, publishers.events("p-one", "p-one"))
    ours, theirs = publishers.events("p-one"), Publishers(first_seq=3).events("p-two")
    segments = [
        seal(messages, first.head, incarnation=1, key=signing_key(), sealed_at=NOW) for messages in (ours, theirs)
    ]
    await add_segment(store, segments[0])
    with pytest.raises(ArchiveConflict):
        await add_segment(store, segments[1])
    reader = await ArchiveReader.open(store)
    assert (await reader.head()) == segments[0].head
    assert (await check_archive(store)).findings == []
    later = datetime.now(UTC) + timedelta(days=2)
    assert await clear_leftovers(reader, now=datetime.now(UTC)) == []
    assert await clear_leftovers(reader, now=later) == sorted(segments[1].files)
    # What a missing manifest leaves stays: it is all that is left of that segment.
    await store.delete(manifest_name(2))
    assert await clear_leftovers(reader, now=later) == []


async def test_a_write_that_was_cut_off_is_no_file_and_is_cleared_once_it_is_old(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    await sealed(store, Publishers().events("p-one"))
    partial = tmp_path / "segments" / ".partial-0f3c"
    partial.write_bytes(b"half")
    reader = await ArchiveReader.open(store)
    assert not any("partial" in name for name in await store.names(""))
    assert await clear_leftovers(reader, now=datetime.now(UTC)) == []
    assert await clear_leftovers(reader, now=datetime.now(UTC) + timedelta(days=2)) == ["segments/.partial-0f3c"]
    assert not partial.exists()


async def test_listing_segments_of_a_folder_looks_at_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderStore(tmp_path)
    for name in ("segments/1.json", "contents/acme/a.zst", "contents/b/c.zst"):
        await store.create(name, b"")
    looked: list[str] = []
    scandir = os.scandir

    def noting(path: str) -> object:
        looked.append(Path(path).name)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", noting)
    assert await store.names("segments/") == ["segments/1.json"]
    assert looked == ["segments"]


async def test_a_folder_without_hard_links_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(ArchiveUnreachable, match="no hard links"):
        await FolderStore(tmp_path).create("archive.json", b"")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "where", ["", "https://example.org/x", "s3://", "s3://user@box/x", "s3://box/x?y", "file://host/x"]
)
def test_a_place_that_can_hold_no_archive_is_refused(where: str) -> None:
    with pytest.raises(SettingsError, match="no archive can lie at"):
        open_store(where)


# What object stores do wrong, and how it is told.


async def test_a_bucket_that_is_not_there_is_said_to_be_missing(s3: str) -> None:
    store = open_store("s3://another/prefix")
    for asked in (store.has("archive.json"), store.names(""), store.create("x", b""), store.read("x")):
        with pytest.raises(ArchiveUnreachable, match="there is no bucket another; make it"):
            await asked


async def test_refused_credentials_are_said_to_be(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_front(s3) as (url, front):
        front.refuse = True
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(ArchiveUnreachable, match=r"refuses the credentials.*AWS_ACCESS_KEY_ID"):
            await open_store(f"s3://{BUCKET}/a").read("x")


async def test_a_server_that_is_away_is_said_to_be(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ArchiveUnreachable, match=r"does not answer as it should.*check AWS_ENDPOINT_URL"):
        await open_store(f"s3://{BUCKET}/a").read("x")


async def test_a_store_that_ignores_conditions_is_refused_before_anything_is_sealed(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_front(s3) as (url, front):
        front.forgets_conditions = True
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        store = open_store(f"s3://{BUCKET}/a")
        with pytest.raises(ArchiveError, match="overwrites although it is asked not to"):
            await store.create("archive.json", b"")
        assert await store.is_empty()
        assert await store.unfinished() == []


async def test_a_creation_whose_answer_was_lost_is_no_conflict_with_itself(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_front(s3) as (url, front):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        store = open_store(f"s3://{BUCKET}/a")
        await store.create("first", b"")
        front.fail_after = 1
        await store.create("second", b"ours")
        assert front.fail_after == 0
        assert await store.read("second") == b"ours"


def test_a_process_that_asked_an_object_store_ends_in_order(s3: str) -> None:
    script = (
        "import asyncio; from relight.engine.archive.store import open_store\n"
        "async def ask():\n"
        f"    store = open_store('s3://{BUCKET}/a')\n"
        "    await store.create('x', b''); await store.names(''); await store.read('x'); await store.delete('x')\n"
        "asyncio.run(ask())\n"
    )
    for _ in range(3):
        subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
