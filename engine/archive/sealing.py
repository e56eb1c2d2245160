"""Founds an archive, and adds sealed segments to it."""

from collections.abc import Sequence
from datetime import datetime

import uuid_utils

from relight.engine.archive.keys import SigningKey
from relight.engine.archive.models import FORMAT, ROOT, KeyStatement, Root, key_name
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.segment import Head, Segment, seal
from relight.engine.archive.signed import sign_document
from relight.engine.archive.store import ArchiveStore
from relight.engine.errors import ArchiveDamaged, ArchiveError
from relight.engine.log.reader import Message
from relight.engine.log.topology import STREAM


async def found_archive(store: ArchiveStore, key: SigningKey, *, now: datetime) -> ArchiveReader:
    """The archive there, or a new one whose first key is this. Raises `ArchiveDamaged`, `ArchiveUnreachable`."""
    if not await store.has(ROOT):
        if not await store.is_empty():
            raise ArchiveDamaged(f"archive {store.place}: there are files, but no {ROOT}: is it another folder?")
        root = Root(format=FORMAT, archive=uuid_utils.uuid4().hex, stream=STREAM, created_at=now, key=key.id)
        await state_key(store, key, endorsed_by=key, after=Head(archive=root.archive), now=now)
        await store.create(ROOT, sign_document(root, key))
    return await ArchiveReader.open(store)


async def state_key(
    store: ArchiveStore, key: SigningKey, *, endorsed_by: SigningKey, after: Head, now: datetime
) -> None:
    """Publishes `key` in the archive, signed by a key that is believed there; it may seal what follows `after`."""
    statement = KeyStatement(
        format=FORMAT,
        archive=after.archive,
        key=key.id,
        public=key.public.hex(),
        endorsed_by=endorsed_by.id,
        after_segment=after.segment,
        after_sha256=after.manifest_sha256,
        stated_at=now,
    )
    await store.create(key_name(key.id), sign_document(statement, endorsed_by))


async def add_segment(store: ArchiveStore, segment: Segment) -> Head:
    """Durable once it returns. Raises `ArchiveConflict` where another archiver sealed this number."""
    for name, body in segment.files.items():
        await store.replace(name, body)
    await store.create(segment.name, segment.manifest_bytes)
    return segment.head


async def seal_next(
    reader: ArchiveReader,
    messages: Sequence[Message],
    after: Head,
    *,
    incarnation: int,
    key: SigningKey,
    sealed_at: datetime,
) -> tuple[Segment, Head]:
    """Seals these messages behind `after`, unless another key took over from this one.

    Raises `ArchiveConflict` where another archiver sealed this number, and `ArchiveError` where the key may not.
    """
    before = after.key or reader.root.key
    if key.id != before:
        await reader.read_keys()
        if not reader.keyring.leads(before, key.id, segment=after.segment + 1):
            raise ArchiveError(
                f"archive {reader.store.place}: key {key.id} may not seal segment {after.segment + 1}: that is for key"
                f" {before} or what it endorses; give its private key by RELIGHT_ARCHIVE_KEY"
            )
    segment = seal(messages, after, incarnation=incarnation, key=key, sealed_at=sealed_at)
    return segment, await add_segment(reader.store, segment)
