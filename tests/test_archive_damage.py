"""An archive is checked by itself: every changed byte is found, and whose events it harmed."""

import random
from functools import cache
from hashlib import sha256

import pytest
import zstandard
from archives import NOW, MemoryStore, Publishers, sealed, signing_key

from relight.engine.archive import keyring, roots, walking, witnesses
from relight.engine.archive import segment as sealing
from relight.engine.archive.keys import signed_by
from relight.engine.archive.models import Index, content_name
from relight.engine.archive.reading import ArchiveReader, decompressed
from relight.engine.archive.salvage import salvage_segment
from relight.engine.archive.sealing import state_key
from relight.engine.archive.segment import Segment
from relight.engine.archive.walking import walk_manifests
from relight.engine.archive.witnessing import witness_archive
from relight.engine.audit.archive import check_archive
from relight.engine.audit.models import Finding
from relight.engine.log.reader import Message

SEED = 20260314
CHANGES = 10_000
FRAME_MESSAGES = 3


async def an_archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[MemoryStore, list[Segment], list[Message]]:
    """Three segments of three frames by two keys, a witness's word, and content."""
    store, publishers = MemoryStore(), Publishers()
    lost = publishers.event("p-two", lost=True)
    first = publishers.events("p-one", "p-two", "p-one", "p-one", "p-two", "p-one", "p-two")
    second = [publishers.again(lost), *publishers.events("p-three", "p-one", "p-one", "p-two", "p-two", "p-three")]
    third = publishers.events("p-one", "p-two", "p-three", "p-one", "p-two", "p-three", "p-one")
    segments = await sealed(store, first, second)
    reader = await ArchiveReader.open(store)
    await state_key(store, signing_key("next"), endorsed_by=signing_key(), after=await reader.head(), now=NOW)
    segments += await sealed(store, third, key=signing_key("next"))
    home = tmp_path_factory.mktemp("witness")
    await witness_archive(store, signing_key("witness"), home, region="us", now=NOW)
    content = b"what was asked"
    store.files[content_name("acme", sha256(content).hexdigest())] = zstandard.compress(content)
    return store, segments, [*first, *second, *third]


@pytest.fixture
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "FRAME_MESSAGES", FRAME_MESSAGES)
    remembered = cache(signed_by)  # most signatures are the same in every copy: a third of the time
    for module in (keyring, roots, walking, witnesses):
        monkeypatch.setattr(module, "signed_by", remembered)


def named(findings: list[Finding]) -> list[tuple[str, int]]:
    """Every event that is named, in the order in which they are."""
    return [
        (finding.publisher, pseq)
        for finding in findings
        if finding.publisher is not None and finding.first_pseq is not None and finding.last_pseq is not None
        for pseq in range(finding.first_pseq, finding.last_pseq + 1)
    ]


async def test_every_one_of_10_000_changed_bytes_is_found_and_the_first_bad_event_named(
    small_frames: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store, segments, messages = await an_archive(tmp_path_factory)
    assert (await check_archive(store)).findings == []
    owners = await events_by_seq(store, segments)
    whole = await ArchiveReader.open(store)
    steps = {step.segment: step async for step in walk_manifests(whole)}
    of_file = {segment.manifest.messages_file.name: segment for segment in segments}
    names = sorted(store.files)
    sizes = [len(store.files[name]) for name in names]
    drawn = random.Random(SEED)
    harmed_events = 0
    for _ in range(CHANGES):
        (name,) = drawn.choices(names, weights=sizes)
        body = bytearray(store.files[name])
        at, change = drawn.randrange(len(body)), drawn.randrange(1, 256)
        body[at] ^= change
        changed = MemoryStore({**store.files, name: bytes(body)})
        what = f"byte {at} of {name} changed by {change:#x}"

        findings = (await check_archive(changed)).findings
        assert findings or harmless(name, store.files[name], bytes(body)), what
        if name not in of_file:
            continue
        # Of the frame that was hit each event is either named or comes back as it was; of the others all come back.
        manifest = of_file[name].manifest
        hit = next(i for i, frame in enumerate(manifest.frames) if at < frame.offset_bytes + frame.size_bytes)
        first_seq = manifest.first_seq + FRAME_MESSAGES * hit
        reader = ArchiveReader(changed, whole.root, whole.keyring, ())
        kept = {message.seq: message for message in (await salvage_segment(reader, steps[manifest.segment])).messages}
        bad = [seq for seq in range(first_seq, first_seq + manifest.frames[hit].messages) if seq not in kept]
        sealed_here = messages[manifest.first_seq - 1 : manifest.last_seq]
        assert list(kept.values()) == [message for message in sealed_here if message.seq not in bad], what
        assert set(named(findings)) == {owners[seq] for seq in bad}, what
        if bad:
            first = next(finding for finding in findings if finding.publisher is not None)
            assert (first.seq, first.publisher, first.first_pseq) == (bad[0], *owners[bad[0]]), what
            harmed_events += len(bad)
    assert harmed_events > CHANGES / 4, "the changes hit events, not only what is around them"


async def events_by_seq(store: MemoryStore, segments: list[Segment]) -> dict[int, tuple[str, int]]:
    found = {}
    for segment in segments:
        body = decompressed(store.files[segment.manifest.index_file.name])
        index = Index.model_validate_json(body)
        for seq, owner, pseq in zip(index.seqs, index.owners, index.pseqs, strict=True):
            found[seq] = (index.publishers[owner], pseq)
    return found


def harmless(name: str, before: bytes, after: bytes) -> bool:
    """Content is named for what it holds, not for how it is compressed: some bits of a frame mean nothing."""
    if not name.startswith("contents/"):
        return False
    try:
        return decompressed(after) == decompressed(before)
    except Exception:
        return False
