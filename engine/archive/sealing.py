"""Founds an archive, and adds sealed segments to it."""

from datetime import datetime

import uuid_utils

from relight.engine.archive.keyring import read_statements
from relight.engine.archive.keys import SigningKey
from relight.engine.archive.models import FORMAT, ROOT, KeyStatement, Root, key_name
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.segment import Head, Segment
from relight.engine.archive.signed import sign_document
from relight.engine.archive.store import ArchiveStore
from relight.engine.errors import ArchiveDamaged
from relight.engine.log.topology import STREAM


async def found_archive(store: ArchiveStore, key: SigningKey, *, now: datetime) -> ArchiveReader:
    """The archive there, or a new one whose first key is this. Raises `ArchiveDamaged`, `ArchiveUnreachable`."""
    if not await store.has(ROOT):
        archive = await _begun(store, key)
        if archive is None:
            archive = uuid_utils.uuid4().hex
            await state_key(store, key, endorsed_by=key, after=Head(archive=archive), now=now)
        root = Root(format=FORMAT, archive=archive, stream=STREAM, created_at=now, key=key.id)
        await store.create(ROOT, sign_document(root, key))
    return await ArchiveReader.open(store)


async def _begun(store: ArchiveStore, key: SigningKey) -> str | None:
    """The archive of which its founder, killed then, had stated only its key; None where there is nothing yet."""
    if await store.is_empty():
        return None
    stated, _ = await read_statements(store)
    if await store.names("") != [key_name(key.id)] or key.id not in stated:
        raise ArchiveDamaged(f"archive {store.place}: there are files, but no {ROOT}: is it another folder?")
    return stated[key.id][0].archive


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
