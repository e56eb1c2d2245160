"""The archive: what is sealed comes back as it was."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from folding import event_id
from stack import encoded, failed

from relight.engine.archive.keys import kept_key
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.sealing import add_segment, found_archive
from relight.engine.archive.segment import Head, seal
from relight.engine.archive.store import FolderStore
from relight.engine.errors import ArchiveConflict, ArchiveDamaged
from relight.engine.log.chain import body_sha256
from relight.engine.log.reader import Message
from relight.events.envelope import GENESIS

NOW = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)


def messages(count: int, *, first_seq: int = 1, publisher: str = "p-test") -> list[Message]:
    prev, found = GENESIS, []
    for n in range(count):
        subject, body = encoded(failed(n), id=event_id(n, n), time=NOW, pseq=n + 1, prev=prev, publisher=publisher)
        found.append(Message(first_seq + n, 1_773_480_413_589_793_238 + n, subject, body, f"id-{n}"))
        prev = body_sha256(body)
    return found


async def test_what_is_sealed_comes_back_as_it_was(tmp_path: Path) -> None:
    store, key, sealed = FolderStore(tmp_path / "archive"), kept_key(tmp_path / "key.pem"), messages(1_200)
    reader = await found_archive(store, key, now=NOW)
    first = seal(sealed[:700], Head(archive=reader.root.archive), incarnation=1, key=key, sealed_at=NOW)
    head = await add_segment(store, first)
    second = seal(sealed[700:], head, incarnation=1, key=key, sealed_at=NOW)
    await add_segment(store, second)
    with pytest.raises(ArchiveConflict):
        await add_segment(store, second)

    again = await ArchiveReader.open(FolderStore(tmp_path / "archive"))
    found = [manifest async for manifest, _ in again.manifests()]
    assert found == [first.manifest, second.manifest]
    assert [message for manifest in found for message in await again.messages(manifest)] == sealed
    assert (await again.index(found[1])).pseqs == tuple(range(701, 1_201))
    assert found[1].spans[0].last_sha256 == body_sha256(sealed[-1].body)

    name = found[0].messages_file.name
    damaged = bytearray(await store.read(name))
    damaged[1_000] ^= 1
    await store.replace(name, bytes(damaged))
    with pytest.raises(ArchiveDamaged, match=name):
        await again.messages(found[0])
