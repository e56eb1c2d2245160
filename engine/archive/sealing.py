"""Founds an archive, and adds sealed segments to it."""

from datetime import datetime

import orjson
import uuid_utils

from relight.engine.archive.keys import SigningKey
from relight.engine.archive.models import FORMAT, ROOT, KeyStatement, Root, key_name
from relight.engine.archive.reading import ArchiveReader, statement_body
from relight.engine.archive.segment import Head, Segment
from relight.engine.archive.store import ArchiveStore
from relight.engine.errors import ArchiveDamaged
from relight.engine.log.topology import STREAM


async def found_archive(store: ArchiveStore, key: SigningKey, *, now: datetime) -> ArchiveReader:
    """The archive there, or a new one whose first key is this. Raises `ArchiveDamaged`, `ArchiveUnreachable`."""
    if ROOT not in await store.names(ROOT):
        if await store.names(""):
            raise ArchiveDamaged(f"archive {store.place}: there are files, but no {ROOT}: is it another folder?")
        root = Root(format=FORMAT, archive=uuid_utils.uuid4().hex, stream=STREAM, created_at=now, key=key.id)
        await state_key(store, root.archive, key, endorsed_by=key, now=now)
        await store.create(ROOT, orjson.dumps(root.model_dump(mode="json"), option=orjson.OPT_INDENT_2))
    return await ArchiveReader.open(store)


async def state_key(
    store: ArchiveStore, archive: str, key: SigningKey, *, endorsed_by: SigningKey, now: datetime
) -> None:
    """Publishes `key` in the archive, signed by a key that is believed there."""
    statement = KeyStatement(
        format=FORMAT,
        archive=archive,
        key=key.id,
        public=key.public.hex(),
        endorsed_by=endorsed_by.id,
        stated_at=now,
        signature="00",
    )
    signed = statement.model_copy(update={"signature": endorsed_by.sign(statement_body(statement))})
    await store.create(key_name(key.id), orjson.dumps(signed.model_dump(mode="json"), option=orjson.OPT_INDENT_2))


async def add_segment(store: ArchiveStore, segment: Segment) -> Head:
    """Durable once it returns. Raises `ArchiveConflict` where another archiver sealed this number."""
    for name, body in segment.files.items():
        await store.replace(name, body)
    await store.create(segment.name, segment.manifest_bytes)
    return segment.head
