"""What an archive's check says of an archive that was cut, swapped, forged or rewound, and of chains sealed broken."""

from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from archives import NOW, MemoryStore, Publishers, sealed, signing_key
from pydantic import BaseModel, ConfigDict

from relight.engine.archive.models import ROOT, Manifest, key_name, manifest_name
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.salvage import salvage_archive
from relight.engine.archive.sealing import found_archive, state_key
from relight.engine.archive.segment import Head, head_of, seal
from relight.engine.archive.signed import sign_document, signed_part
from relight.engine.archive.store import FolderStore
from relight.engine.audit.archive import Checked, Known, KnownHead, check_archive
from relight.engine.audit.models import Kind
from relight.engine.errors import ArchiveDamaged
from relight.engine.log.chain import body_sha256
from relight.engine.log.reader import Message


class Newer(BaseModel):
    """What a later release may write: whatever it likes."""

    model_config = ConfigDict(extra="allow")


Told = tuple[Kind, str | None, int | None, int | None, int | None]


def told(checked: Checked) -> list[Told]:
    """Kind, publisher, first and last number, segment."""
    return [(f.kind, f.publisher, f.first_pseq, f.last_pseq, f.segment) for f in checked.findings]


async def three_segments() -> tuple[MemoryStore, Publishers]:
    store, publishers = MemoryStore(), Publishers()
    await sealed(store, *(publishers.events("p-one", "p-two", "p-one") for _ in range(3)))
    return store, publishers


def files_of(store: MemoryStore, segment: int) -> list[str]:
    return [name for name in store.files if name.startswith(f"segments/{segment:012d}")]


async def test_a_sound_archive_has_no_findings_and_says_what_it_holds() -> None:
    store, publishers = await three_segments()
    seen: list[tuple[int, int]] = []
    known = Known(
        trust=signing_key().id,
        archive=(await ArchiveReader.open(store)).root.archive,
        publishers={name: publishers.head(name) for name in ("p-one", "p-two")},
    )
    checked = await check_archive(store, known=known, advanced=lambda done, of: seen.append((done, of)))
    assert checked.findings == []
    assert (checked.segments, checked.events, checked.publishers) == (3, 9, 2)
    assert seen == [(1, 3), (2, 3), (3, 3)]


async def test_a_segment_removed_in_the_middle_is_named_with_the_events_that_went_with_it() -> None:
    store, _ = await three_segments()
    for name in files_of(store, 2):
        del store.files[name]
    assert told(await check_archive(store)) == [
        (Kind.DAMAGED, None, None, None, 2),
        (Kind.MISSING, "p-one", 3, 4, None),
        (Kind.MISSING, "p-two", 2, 2, None),
    ]


async def test_where_only_a_manifest_is_gone_its_events_are_read_all_the_same() -> None:
    store, _ = await three_segments()
    del store.files[manifest_name(2)]
    checked = await check_archive(store)
    assert told(checked) == [(Kind.DAMAGED, None, None, None, 2)]
    assert checked.events == 9


async def test_a_tail_that_was_cut_shows_by_what_is_known_from_elsewhere() -> None:
    store, publishers = await three_segments()
    head = await (await ArchiveReader.open(store)).head()
    known = Known(
        heads=[KnownHead(segment=3, manifest_sha256=head.manifest_sha256, said_by="the table of archives")],
        publishers={"p-one": publishers.head("p-one"), "p-two": publishers.head("p-two")},
    )
    del store.files[manifest_name(3)]
    assert (await check_archive(store)).unsealed == [3]
    for name in files_of(store, 3):
        del store.files[name]
    assert told(await check_archive(store)) == [], "it is a whole archive, as it once was"
    checked = await check_archive(store, known=known)
    assert told(checked) == [
        (Kind.TRUNCATED, None, None, None, 3),
        (Kind.TRUNCATED, "p-one", 5, 6, None),
        (Kind.TRUNCATED, "p-two", 3, 3, None),
    ]
    assert "the table of archives saw segment 3" in checked.findings[0].detail


async def test_two_segments_in_each_others_place_are_both_named() -> None:
    store, _ = await three_segments()
    one, two = manifest_name(1), manifest_name(2)
    store.files[one], store.files[two] = store.files[two], store.files[one]
    findings = (await check_archive(store)).findings
    assert [finding.segment for finding in findings if finding.kind is Kind.DAMAGED] == [1, 2]
    assert all("belongs elsewhere" in finding.detail for finding in findings if finding.kind is Kind.DAMAGED)


async def test_messages_in_each_others_file_are_named() -> None:
    store, _ = await three_segments()
    names = [name for name in sorted(store.files) if name.endswith(".messages.zst")][:2]
    store.files[names[0]], store.files[names[1]] = store.files[names[1]], store.files[names[0]]
    assert told(await check_archive(store)) == [
        (Kind.DAMAGED, "p-one", 1, 2, 1),
        (Kind.DAMAGED, "p-two", 1, 1, 1),
        (Kind.DAMAGED, "p-one", 3, 4, 2),
        (Kind.DAMAGED, "p-two", 2, 2, 2),
    ]


async def test_a_manifest_that_a_stranger_signed_is_not_believed() -> None:
    store, _ = await three_segments()
    stranger = signing_key("stranger")
    manifest = Manifest.model_validate_json(signed_part(store.files[manifest_name(3)])[0])
    store.files[manifest_name(3)] = sign_document(manifest.model_copy(update={"key": stranger.id}), stranger)
    (finding,) = (await check_archive(store)).findings
    assert finding.segment == 3
    assert "no key of this archive" in finding.detail

    # Nor where the stranger's key is put beside the others, or signs under the archive's own name.
    head = Head(archive=manifest.archive)
    await state_key(store, stranger, endorsed_by=stranger, after=head, now=NOW)
    found = (await check_archive(store)).findings
    assert [finding.segment for finding in found] == [None, 3]
    del store.files[key_name(stranger.id)]
    store.files[manifest_name(3)] = sign_document(manifest, stranger)
    (finding,) = (await check_archive(store)).findings
    assert "altered since it was signed" in finding.detail


async def test_an_event_replaced_by_anothers_with_every_hash_made_anew_is_found_without_the_key() -> None:
    store, publishers = MemoryStore(), Publishers()
    messages = [publishers.events("p-one", "p-two", "p-one") for _ in range(3)]
    segments = await sealed(store, *messages)
    forged = replace(Publishers(first_seq=messages[1][1].seq).event("p-four"), timestamp_ns=messages[1][1].timestamp_ns)
    again = seal(
        [messages[1][0], forged, messages[1][2]],
        segments[0].head,
        incarnation=1,
        key=signing_key("stranger"),
        sealed_at=NOW,
    )
    for name in files_of(store, 2):
        del store.files[name]
    signature = store.files[manifest_name(1)].split(b"\n")[1]
    document = again.manifest.model_copy(update={"key": signing_key().id}).model_dump(mode="json")
    store.files.update(again.files)
    store.files[manifest_name(2)] = b"%b\n%b\n" % (orjson.dumps(document), signature)
    checked = await check_archive(store)
    assert told(checked)[0] == (Kind.DAMAGED, None, None, None, 2)
    assert (Kind.MISSING, "p-two", 2, 2, None) in told(checked)


async def test_a_file_cut_off_keeps_what_comes_before_the_cut() -> None:
    store, publishers = MemoryStore(), Publishers()
    messages = [publishers.event(n=n) for n in range(1_200)]
    (segment,) = await sealed(store, messages)
    name = segment.manifest.messages_file.name
    second = segment.manifest.frames[1]
    store.files[name] = store.files[name][: second.offset_bytes + second.size_bytes // 2]
    (part,) = [part async for part in salvage_archive(await ArchiveReader.open_damaged(store))]
    kept = len(part.messages)
    assert 500 <= kept < 1_000
    assert part.messages == messages[:kept]
    assert told(await check_archive(store)) == [(Kind.DAMAGED, "p-one", kept + 1, 1_200, 1)]


async def test_of_a_flipped_byte_in_a_large_frame_the_first_bad_event_is_named() -> None:
    store, publishers = MemoryStore(), Publishers()
    messages = [publishers.event(n=n) for n in range(500)]
    (segment,) = await sealed(store, messages)
    name = segment.manifest.messages_file.name
    body = bytearray(store.files[name])
    body[-20] ^= 1  # in the last block: everything in those before it is still there
    store.files[name] = bytes(body)
    findings = (await check_archive(store)).findings
    assert all(finding.kind is Kind.DAMAGED and finding.publisher == "p-one" for finding in findings)
    first = findings[0].first_pseq
    assert first is not None
    assert 100 < first <= 500
    (part,) = [part async for part in salvage_archive(await ArchiveReader.open_damaged(store))]
    assert part.messages[: first - 1] == messages[: first - 1]


async def test_without_its_index_a_damaged_segment_says_how_many_messages_cannot_be_told() -> None:
    store, publishers = MemoryStore(), Publishers()
    (segment,) = await sealed(store, publishers.events(*["p-one"] * 5))
    manifest = segment.manifest
    del store.files[manifest.index_file.name]
    assert [f.detail for f in (await check_archive(store)).findings] == [f"{manifest.index_file.name} is not there"]
    del store.files[manifest.messages_file.name]
    assert "5 messages" in (await check_archive(store)).findings[-1].detail


async def test_a_newer_format_is_said_to_be_one() -> None:
    store, _ = await three_segments()
    root = orjson.loads(signed_part(store.files[ROOT])[0])
    store.files[ROOT] = sign_document(Newer.model_validate({**root, "format": 2}), signing_key())
    with pytest.raises(ArchiveDamaged, match="format 2, this release knows 1: upgrade"):
        await ArchiveReader.open(store)
    (finding,) = (await check_archive(store)).findings
    assert "upgrade" in finding.detail


async def test_an_archive_without_segments_is_sound_and_another_folder_is_none(tmp_path: Path) -> None:
    store = MemoryStore()
    await found_archive(store, signing_key(), now=NOW)
    assert (await check_archive(store)).findings == []

    (tmp_path / "holiday.jpg").write_bytes(b"")
    for store_ in (FolderStore(tmp_path), FolderStore(tmp_path / "nothing")):
        with pytest.raises(ArchiveDamaged, match="is it another folder"):
            await check_archive(store_)
    with pytest.raises(ArchiveDamaged, match="is it another folder"):
        await found_archive(FolderStore(tmp_path), signing_key(), now=NOW)


async def test_an_archive_whose_root_is_gone_is_checked_by_its_first_key() -> None:
    store, _ = await three_segments()
    del store.files[ROOT]
    checked = await check_archive(store)
    assert (len(checked.findings), checked.events) == (1, 9)
    assert ROOT in checked.findings[0].detail


# What was wrong already when it was sealed.


async def checked_of(*segments: list[Message], known: Known | None = None) -> Checked:
    store = MemoryStore()
    await sealed(store, *segments)
    return await check_archive(store, known=known or Known())


async def test_numbers_that_were_never_sealed_are_missing_unless_declared_lost_or_healed_later() -> None:
    publishers = Publishers()
    first = [publishers.event(), publishers.event(lost=True), publishers.event(lost=True), publishers.event()]
    on_stream, lost = [first[0], first[3]], first[1]
    assert told(await checked_of(on_stream)) == [(Kind.MISSING, "p-one", 2, 3, None)]
    checked = await checked_of(on_stream, [publishers.again(lost)])
    assert told(checked) == [(Kind.MISSING, "p-one", 3, 3, None)]
    assert checked.healed == 1


async def test_altered_forked_reordered_and_foreign_events_are_told_apart() -> None:
    publishers = Publishers()
    events = [publishers.event() for _ in range(5)]
    altered = replace(events[2], body=events[2].body.replace(b"Timeout", b"timeout"))
    assert told(await checked_of([*events[:2], altered, *events[3:]])) == [(Kind.ALTERED, "p-one", 3, 3, None)]

    said = orjson.loads(events[2].body)["prev"]
    of_prev = replace(events[2], body=events[2].body.replace(said[:8].encode(), b"00000000", 1))
    assert told(await checked_of([*events[:2], of_prev, *events[3:]])) == [(Kind.ALTERED, "p-one", 3, 3, 1)]

    fork = replace(altered, seq=6)
    assert told(await checked_of(events, [fork])) == [(Kind.FORKED, "p-one", 3, 3, 2)]
    swapped = [events[0], replace(events[2], seq=2), replace(events[1], seq=3), *events[3:]]
    assert told(await checked_of(swapped)) == [(Kind.REORDERED, "p-one", 2, 2, 1)]
    foreign = Message(6, 0, "ev.eu.breakers.acme.failed", b"hello")
    assert told(await checked_of(events, [foreign])) == [(Kind.INSERTED, None, None, None, 2)]


async def test_copies_are_counted_apart_and_no_finding() -> None:
    publishers = Publishers()
    events = [publishers.event() for _ in range(4)]
    checked = await checked_of(events, [publishers.again(events[1]), publishers.again(events[2], suffix="")])
    assert told(checked) == []
    assert (checked.healed, checked.repeated) == (1, 2)


async def test_what_a_rewound_stream_lost_is_replaced_by_what_came_in_its_place() -> None:
    store, publishers = MemoryStore(), Publishers()
    first = [publishers.event() for _ in range(3)]
    gone = [publishers.event() for _ in range(3)]
    await sealed(store, first, gone)
    publishers.next_seq = gone[0].seq
    later = [publishers.event("p-two"), publishers.again(gone[0])]
    await sealed(store, later, incarnation=2)
    checked = await check_archive(store)
    assert told(checked) == []
    assert checked.replaced == 3
    publishers.event(lost=True)
    known = Known(publishers={"p-one": publishers.head("p-one")})
    assert told(await check_archive(store, known=known)) == [(Kind.TRUNCATED, "p-one", 7, 7, None)]


async def test_a_known_event_with_another_hash_is_altered() -> None:
    store, publishers = await three_segments()
    known = Known(publishers={"p-one": (publishers.head("p-one")[0], body_sha256(b"another"))})
    assert told(await check_archive(store, known=known)) == [(Kind.ALTERED, "p-one", 6, 6, None)]


# Keys.


async def test_a_key_stolen_after_its_rotation_seals_no_second_history() -> None:
    store, publishers = MemoryStore(), Publishers()
    old, new = signing_key("old"), signing_key("new")
    first, second = publishers.events("p-one", "p-one"), publishers.events("p-one", "p-one")
    await sealed(store, first, key=old)
    reader = await ArchiveReader.open(store)
    await state_key(store, new, endorsed_by=old, after=await reader.head(), now=NOW)
    (honest,) = await sealed(store, second, key=new)
    assert (await check_archive(store, known=Known(trust=new.id))).findings == []

    # Behind the new key's segment the old one may not seal.
    third = seal(publishers.events("p-one"), honest.head, incarnation=1, key=old, sealed_at=NOW)
    forged = MemoryStore({**store.files, **third.files, third.name: third.manifest_bytes})
    (finding,) = (await check_archive(forged)).findings
    assert "does not speak for it" in finding.detail

    # In place of what it sealed itself neither: the new one's segment follows another.
    other = seal(Publishers().events("p-one"), Head(archive=reader.root.archive), incarnation=1, key=old, sealed_at=NOW)
    forged = MemoryStore({**store.files, **other.files, other.name: other.manifest_bytes})
    findings = (await check_archive(forged)).findings
    assert any(f.segment == 2 and "does not follow" in f.detail for f in findings)
    assert any(f.segment == 2 and "stated after another segment 1" in f.detail for f in findings)

    # Without the new one's segments it is an archive as it could have been: whoever trusts the new key refuses it.
    for name in files_of(forged, 2):
        del forged.files[name]
    assert (await check_archive(forged)).findings == []
    (finding,) = (await check_archive(forged, known=Known(trust=new.id))).findings
    assert "sealed nothing here" in finding.detail
    assert head_of(other.manifest, other.manifest_bytes).key == old.id
