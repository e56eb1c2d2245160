"""The archive: what is sealed comes back as it was."""

from pathlib import Path

import pytest
from archives import NOW, MemoryStore, Publishers, sealed
from hypothesis import given, settings
from hypothesis import strategies as st

from relight.engine.archive.keys import kept_key
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.records import decode_record, encode_record
from relight.engine.archive.salvage import salvage_archive
from relight.engine.archive.sealing import add_segment, found_archive, state_key
from relight.engine.archive.segment import Head, seal
from relight.engine.archive.store import FolderStore
from relight.engine.audit.archive import check_archive
from relight.engine.audit.models import Kind
from relight.engine.errors import ArchiveConflict, ArchiveDamaged
from relight.engine.log.chain import body_sha256
from relight.engine.log.reader import Message
from relight.engine.log.topology import MESSAGE_ID, SwiftClient


async def test_what_is_sealed_comes_back_as_it_was(tmp_path: Path) -> None:
    store, key, publishers = FolderStore(tmp_path / "archive"), kept_key(tmp_path / "key.pem"), Publishers()
    messages = [publishers.event(n=n) for n in range(1_200)]
    reader = await found_archive(store, key, now=NOW)
    first = seal(messages[:700], Head(archive=reader.root.archive), incarnation=1, key=key, sealed_at=NOW)
    head = await add_segment(store, first)
    second = seal(messages[700:], head, incarnation=1, key=key, sealed_at=NOW)
    await add_segment(store, second)
    with pytest.raises(ArchiveConflict):
        await add_segment(store, second)

    again = await ArchiveReader.open(FolderStore(tmp_path / "archive"))
    found = [manifest async for manifest, _ in again.manifests()]
    assert found == [first.manifest, second.manifest]
    assert [message for manifest in found for message in await again.messages(manifest)] == messages
    assert (await again.index(found[1])).pseqs == tuple(range(701, 1_201))
    assert found[1].spans[0].last_sha256 == body_sha256(messages[-1].body)

    name = found[0].messages_file.name
    damaged = bytearray(await store.read(name))
    damaged[1_000] ^= 1
    await store.replace(name, bytes(damaged))
    with pytest.raises(ArchiveDamaged, match=name):
        await again.messages(found[0])


SUBJECTS = st.text(max_size=60)
IDS = SUBJECTS | st.binary(max_size=40).map(lambda raw: raw.decode(errors="surrogateescape"))
LONG_ID = st.just("x" * 70_000)


@st.composite
def any_messages(draw: st.DrawFn) -> list[Message]:
    """What may stand on a stream: also no event, no text, nothing at all."""
    publishers = Publishers()
    found, seq = [], 0
    for _ in range(draw(st.integers(1, 12))):
        seq += draw(st.integers(1, 1 << 40))
        timestamp_ns = draw(st.integers(0, 2**63 - 1))
        if draw(st.booleans()):
            event = publishers.event(draw(st.sampled_from(("p-one", "p-zwölf", "p two"))))
            found.append(Message(seq, timestamp_ns, event.subject, event.body, draw(IDS)))
        else:
            body = draw(st.binary(max_size=300) | st.sampled_from((b"{}", b'{"publisher":1}', b"[" * 2_000)))
            found.append(Message(seq, timestamp_ns, draw(SUBJECTS), body, draw(IDS | LONG_ID)))
    return found


@given(messages=any_messages(), split=st.integers(0, 12))
@settings(max_examples=150, deadline=None)
async def test_any_message_comes_back_byte_for_byte(messages: list[Message], split: int) -> None:
    store = MemoryStore()
    await sealed(store, *(part for part in (messages[:split], messages[split:]) if part))
    reader = await ArchiveReader.open(store)
    assert [m async for manifest, _ in reader.manifests() for m in await reader.messages(manifest)] == messages
    assert [m async for part in salvage_archive(reader) for m in part.messages] == messages
    checked = await check_archive(store)
    assert checked.events == len(messages)
    assert all(finding.kind is Kind.INSERTED for finding in checked.findings), checked.findings


async def test_an_archive_whose_founder_was_killed_is_founded_by_doing_it_again(tmp_path: Path) -> None:
    store, key = MemoryStore(), kept_key(tmp_path / "key.pem")
    await state_key(store, key, endorsed_by=key, after=Head(archive="0" * 32), now=NOW)
    assert (await found_archive(store, key, now=NOW)).root.archive == "0" * 32
    stranger = kept_key(tmp_path / "stranger.pem")
    begun = MemoryStore()
    await state_key(begun, key, endorsed_by=key, after=Head(archive="0" * 32), now=NOW)
    with pytest.raises(ArchiveDamaged, match=r"but no archive\.json"):
        await found_archive(begun, stranger, now=NOW)


async def test_a_message_id_that_is_no_text_is_read_and_kept_as_it_is() -> None:
    headers = await SwiftClient(message_ids=True)._process_headers(b"NATS/1.0\r\nNats-Msg-Id: a\xff\r\n\r\n")
    assert headers is not None
    record = encode_record(Message(1, 0, "ev.x", b"", headers[MESSAGE_ID]))
    assert b"a\xff" in record
    assert decode_record(record).message_id == headers[MESSAGE_ID]
