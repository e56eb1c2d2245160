"""Keys that seal, their rotation, and witnesses: who may say what of an archive, and what a thief may not."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import typer
from archives import NOW, MemoryStore, Publishers, sealed
from typer.testing import CliRunner

from relight.engine.archive import rotation
from relight.engine.archive.keys import kept_key, key_id, make_key, read_key, signed_by
from relight.engine.archive.models import WITNESSES, manifest_name
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.rotation import rotate_key
from relight.engine.archive.store import FolderStore
from relight.engine.archive.witnesses import memory_path
from relight.engine.archive.witnessing import Witnessed, witness_archive
from relight.engine.audit.archive import Known, check_archive
from relight.engine.audit.models import Kind
from relight.engine.cli import archive_keys
from relight.engine.errors import ArchiveDamaged, ArchiveError, SettingsError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys" / "archive.pem"
    kept_key(path)
    return path


def test_a_key_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "archive.pem"
    key = kept_key(path)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert kept_key(path).id == key.id == key_id(key.public)
    make_key(path)
    assert read_key(path).id == key.id
    assert [found.name for found in path.parent.iterdir()] == ["archive.pem"]
    for mode in (0o640, 0o604):
        path.chmod(mode)
        with pytest.raises(ArchiveError, match=r"can be read by others .*chmod 600"):
            kept_key(path)
    path.chmod(0o600)
    path.write_bytes(b"-----BEGIN PRIVATE KEY-----\n")
    with pytest.raises(ArchiveError, match="cannot be read"):
        kept_key(path)


def test_a_signature_has_one_form(path: Path) -> None:
    key = kept_key(path)
    signature = key.sign(b"this")
    assert signed_by(key.public, b"this", signature)
    assert not signed_by(key.public, b"that", signature)
    assert not signed_by(key.public, b"this", signature.upper())
    assert not signed_by(key.public, b"this", f" {signature}")
    assert not signed_by(key.public, b"this", "")


async def test_a_rotated_key_is_endorsed_and_takes_over_with_the_next_segment(path: Path) -> None:
    store, publishers, old = MemoryStore(), Publishers(), kept_key(path)
    await sealed(store, publishers.events("p-one"), key=old)
    rotated = await rotate_key(store, path, now=NOW, keep_old=True)
    new = kept_key(path)
    assert (rotated.old, rotated.new, rotated.after_segment) == (old.id, new.id, 1)
    assert rotated.kept is not None
    assert read_key(Path(rotated.kept)).id == old.id
    await ArchiveReader.open(store, trust=old.id)
    with pytest.raises(ArchiveDamaged, match="sealed nothing here"):
        await ArchiveReader.open(store, trust=new.id)  # yet

    await sealed(store, publishers.events("p-one"), key=old)  # by an archiver that had loaded it before
    await sealed(store, publishers.events("p-one"), key=new)
    with pytest.raises(ArchiveError, match=f"key {old.id} may not seal segment 4"):
        await sealed(store, Publishers(first_seq=4).events("p-two"), key=old)
    with pytest.raises(ArchiveError, match=f"{old.id}: only the former can endorse another"):
        await rotate_key(store, Path(rotated.kept), now=NOW, keep_old=True)
    assert (await check_archive(store, known=Known(trust=new.id))).findings == []
    reader = await ArchiveReader.open(store, trust=new.id)
    assert [manifest.key async for manifest, _ in reader.manifests()] == [old.id, old.id, new.id]
    with pytest.raises(ArchiveDamaged, match="sealed nothing here"):
        await ArchiveReader.open(store, trust="0" * 32)

    again = await rotate_key(store, path, now=NOW, keep_old=False)
    third = await rotate_key(store, path, now=NOW, keep_old=False)  # before the second has sealed anything
    assert (again.kept, third.kept, third.old) == (None, None, again.new)
    await sealed(store, publishers.events("p-one"), key=kept_key(path))
    assert (await check_archive(store, known=Known(trust=third.new))).findings == []
    assert len(list(path.parent.iterdir())) == 2


@pytest.mark.parametrize("cut_at", ["make_key", "read_key", "state_key", "sync_folder", "link"])
@pytest.mark.parametrize("before", [True, False])
async def test_a_rotation_cut_off_anywhere_is_finished_by_doing_it_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, cut_at: str, before: bool
) -> None:
    store, publishers, old = MemoryStore(), Publishers(), kept_key(path)
    await sealed(store, publishers.events("p-one"), key=old)
    place = rotation.os if cut_at == "link" else rotation
    work = getattr(place, cut_at)

    def cut(*arguments: object, **options: object) -> object:
        if before:
            raise KeyboardInterrupt
        if cut_at == "state_key":

            async def stated() -> None:
                await work(*arguments, **options)
                raise KeyboardInterrupt

            return stated()
        work(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(place, cut_at, cut)
        with pytest.raises(KeyboardInterrupt):
            await rotate_key(store, path, now=NOW, keep_old=True)

    # Whatever lies there now seals, and the archive is sound.
    await sealed(store, publishers.events("p-one"), key=kept_key(path))
    assert (await check_archive(store)).findings == []
    rotated = await rotate_key(store, path, now=NOW, keep_old=True)
    await sealed(store, publishers.events("p-one"), key=kept_key(path))
    checked = await check_archive(store, known=Known(trust=rotated.new))
    assert checked.findings == []
    assert checked.keys[0] == old.id
    assert not path.with_name("archive.pem.next").exists()
    assert read_key(path.with_name(f"archive-{old.id}.pem")).id == old.id


async def test_a_key_that_is_not_the_archives_rotates_nothing(path: Path, tmp_path: Path) -> None:
    store = MemoryStore()
    await sealed(store, Publishers().events("p-one"), key=kept_key(path))
    stranger = tmp_path / "stranger.pem"
    kept_key(stranger)
    with pytest.raises(ArchiveError, match="only the former can endorse another"):
        await rotate_key(store, stranger, now=NOW, keep_old=True)
    with pytest.raises(ArchiveError, match="only then rotated"):
        await rotate_key(store, tmp_path / "none.pem", now=NOW, keep_old=True)


# Witnesses.


class Witness:
    """One with its own home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.key = kept_key(home / "keys" / "witness.pem")
        self.days = 0

    async def look(self, store: MemoryStore, **options: str) -> Witnessed:
        self.days += 1
        now = NOW + timedelta(days=self.days)
        return await witness_archive(store, self.key, self.home, region="us", now=now, **options)


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return Witness(tmp_path / "us")


async def test_a_witness_signs_the_head_and_goes_on_from_there(witness: Witness) -> None:
    store, publishers = MemoryStore(), Publishers()
    await sealed(store, publishers.events("p-one"), publishers.events("p-one"))
    first = await witness.look(store)
    assert (first.segment, first.segments) == (2, 2)
    assert (await witness.look(store)).segments == 0
    await sealed(store, publishers.events("p-one"))
    assert (await witness.look(store)).segments == 1
    assert len(await store.names(WITNESSES)) == 2
    checked = await check_archive(store)
    assert (checked.findings, checked.witnessed_segment) == ([], 3)


async def test_an_archive_cut_or_rewritten_below_a_witnessed_head_is_found_by_both(witness: Witness) -> None:
    store, publishers = MemoryStore(), Publishers()
    await sealed(store, publishers.events("p-one"))
    before = dict(store.files)
    await sealed(store, publishers.events("p-one"))
    await witness.look(store)
    word = {name: store.files[name] for name in await store.names(WITNESSES)}

    cut = MemoryStore({**before, **word})
    with pytest.raises(ArchiveDamaged, match=r"segment 2, witnessed .*, is not there: the archive was cut short"):
        await witness.look(cut)
    (finding,) = (await check_archive(cut)).findings
    assert (finding.kind, finding.segment) == (Kind.TRUNCATED, 2)

    rewritten = MemoryStore({**before, **word})
    await sealed(rewritten, Publishers(first_seq=2).events("p-two"), publishers.events("p-one"))
    with pytest.raises(ArchiveDamaged, match="segment 2 is not the one that was witnessed"):
        await witness.look(rewritten)
    findings = (await check_archive(rewritten)).findings
    assert (findings[0].kind, findings[0].segment) == (Kind.ALTERED, 2)
    assert "us" in findings[0].detail

    # The witness's own copy tells it, too, where its word was taken out of the archive.
    for files in (cut.files, rewritten.files):
        for name in word:
            del files[name]
    for store_ in (cut, rewritten):
        with pytest.raises(ArchiveDamaged, match="witnessed"):
            await witness.look(store_)
    other = MemoryStore()
    await sealed(other, Publishers().events("p-one"))
    with pytest.raises(ArchiveDamaged, match="it was put in its place"):
        await witness.look(other)


async def test_a_witness_whose_home_is_lost_goes_by_its_word_in_the_archive(witness: Witness) -> None:
    store, publishers = MemoryStore(), Publishers()
    await sealed(store, publishers.events("p-one"))
    await sealed(store, publishers.events("p-one"))
    await witness.look(store)
    memory_path(witness.home, store.place).unlink()
    assert (await witness.look(store)).segments == 0
    memory_path(witness.home, store.place).unlink()
    del store.files[manifest_name(2)]
    with pytest.raises(ArchiveDamaged, match="cut short"):
        await witness.look(store)


async def test_a_witness_signs_nothing_that_is_not_right(witness: Witness) -> None:
    store, publishers = MemoryStore(), Publishers()
    (segment,) = await sealed(store, publishers.events("p-one"))
    with pytest.raises(ArchiveDamaged, match="which is to be trusted"):
        await witness.look(store, trust="0" * 32)
    del store.files[segment.manifest.index_file.name]
    with pytest.raises(ArchiveDamaged, match=r"index\.zst of segment 1 is not there"):
        await witness.look(store)
    assert await store.names(WITNESSES) == []
    with pytest.raises(ArchiveDamaged, match="is it another folder"):
        await witness.look(MemoryStore())


def test_the_commands_list_rotate_and_witness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELIGHT_HOME", str(tmp_path))
    monkeypatch.setenv("RELIGHT_ARCHIVE", str(tmp_path / "archive"))
    store, publishers = FolderStore(tmp_path / "archive"), Publishers()
    path = tmp_path / "keys" / "archive.pem"
    asyncio.run(sealed(store, publishers.events("p-one"), key=kept_key(path)))
    old = read_key(path).id
    app = typer.Typer()
    app.add_typer(archive_keys.key, name="key")
    app.command("witness")(archive_keys.witness)

    def asked(*words: str) -> Any:
        found = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
        assert found.exit_code == 0, found.output
        return orjson.loads(found.stdout)

    kept = str(path.with_name(f"archive-{old}.pem"))
    rotated = asked("key", "rotate")
    assert rotated == {"old": old, "new": read_key(path).id, "after_segment": 1, "kept": kept}
    states = [(key["key"], key["state"], key["here"]) for key in asked("key", "list")]
    assert states == [(old, "sealing", False), (rotated["new"], "stated", True)]
    asyncio.run(sealed(store, publishers.events("p-one"), key=kept_key(path)))
    assert [key["state"] for key in asked("key", "list")] == ["ended", "sealing"]
    witnessed = asked("witness")
    assert (witnessed["segment"], witnessed["segments"]) == (2, 2)
    assert Path(witnessed["remembered"]).is_file()
    assert CliRunner().invoke(app, ["key", "list"]).exit_code == CliRunner().invoke(app, ["witness"]).exit_code == 0

    asyncio.run(store.delete(manifest_name(2)))
    with pytest.raises(ArchiveDamaged, match="cut short"):
        asked("witness")
    monkeypatch.setenv("RELIGHT_ARCHIVE_TRUST", "0" * 32)
    with pytest.raises(ArchiveDamaged, match="which is to be trusted"):
        asked("key", "list")
    monkeypatch.delenv("RELIGHT_ARCHIVE")
    with pytest.raises(SettingsError, match="set RELIGHT_ARCHIVE"):
        asked("key", "rotate")
