"""Another region's word for an archive: it checks what came since its last visit, signs the head, and remembers it."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from relight.engine.archive.keys import SigningKey
from relight.engine.archive.models import FORMAT, SEGMENTS, WITNESSES, WitnessStatement, manifest_name, witness_name
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.segment import Head
from relight.engine.archive.signed import sign_document
from relight.engine.archive.store import ArchiveStore
from relight.engine.archive.witnesses import Memory, memory_path, read_memory, read_statement, write_memory
from relight.engine.errors import ArchiveConflict, ArchiveDamaged, ArchiveError


@dataclass(frozen=True, slots=True, kw_only=True)
class Witnessed:
    """`segments`: how many were new. `remembered`: the file at home, to be kept apart from the archive."""

    archive: str
    segment: int
    manifest_sha256: str
    segments: int
    witness: str
    remembered: str


async def witness_archive(
    store: ArchiveStore, key: SigningKey, home: Path, *, region: str, now: datetime, trust: str | None = None
) -> Witnessed:
    """Checks root, keys and every manifest since the last visit, and signs the head.

    Raises `ArchiveDamaged` where the archive is not the one that was witnessed, was cut short or rewritten, or anything
    new in it is not right: then nothing is signed.
    """
    path = memory_path(home, store.place)
    reader = await ArchiveReader.open(store, trust=trust)
    memory = read_memory(path) or await _own_word(reader, key)
    seen = Head(archive=reader.root.archive)
    if memory is not None:
        seen = await _still_there(reader, memory)
    head, segments = await _followed(reader, seen)
    if not head.segment:
        raise ArchiveError(f"archive {store.place}: nothing is sealed yet; come back when something is")
    if memory is None or head.segment > seen.segment:
        statement = WitnessStatement(
            format=FORMAT,
            archive=head.archive,
            segment=head.segment,
            manifest_sha256=head.manifest_sha256,
            witness=key.id,
            public=key.public.hex(),
            region=region,
            witnessed_at=now,
        )
        memory = Memory(
            place=store.place,
            archive=head.archive,
            root_key=reader.root.key,
            statement=sign_document(statement, key).decode(),
        )
        write_memory(path, memory)
    await _publish(store, memory)
    return Witnessed(
        archive=head.archive,
        segment=head.segment,
        manifest_sha256=head.manifest_sha256,
        segments=segments,
        witness=key.id,
        remembered=str(path),
    )


async def _still_there(reader: ArchiveReader, memory: Memory) -> Head:
    place = reader.store.place
    statement = read_statement(memory.statement.encode(), archive=memory.archive)
    if (reader.root.archive, reader.root.key) != (memory.archive, memory.root_key):
        raise ArchiveDamaged(
            f"archive {place}: this is archive {reader.root.archive} of key {reader.root.key}; witnessed was"
            f" {memory.archive} of key {memory.root_key}: it was put in its place"
        )
    segments = await reader.segments(after=statement.segment - 1)
    if statement.segment not in segments:
        raise ArchiveDamaged(
            f"archive {place}: segment {statement.segment}, witnessed {statement.witnessed_at}, is not there:"
            " the archive was cut short; keep a copy of it as it is, and look into who can write there"
        )
    _, head = await reader.manifest(statement.segment)
    if head.manifest_sha256 != statement.manifest_sha256:
        raise ArchiveDamaged(
            f"archive {place}: segment {statement.segment} is not the one that was witnessed {statement.witnessed_at}:"
            " the archive was rewritten; keep a copy of it as it is, and look into who has its key"
        )
    return head


async def _followed(reader: ArchiveReader, seen: Head) -> tuple[Head, int]:
    """The head that follows from what was seen, and how many segments are new."""
    there = set(await reader.store.names(SEGMENTS, after=manifest_name(seen.segment)))
    head, segments = seen, 0
    for segment in await reader.segments(after=seen.segment):
        manifest, head = await reader.manifest(segment, head)
        for name in (manifest.messages_file.name, manifest.index_file.name):
            if name not in there:
                raise ArchiveDamaged(f"archive {reader.store.place}: {name} of segment {segment} is not there")
        segments += 1
    return head, segments


async def _own_word(reader: ArchiveReader, key: SigningKey) -> Memory | None:
    """Where a witness's home was lost: the last of its statements that the archive still has."""
    for name in reversed(await reader.store.names(WITNESSES)):
        if not name.endswith(f"-{key.id}.json"):
            continue
        body = await reader.store.read(name)
        try:
            read_statement(body, archive=reader.root.archive, name=name)
        except ArchiveDamaged as error:
            raise ArchiveDamaged(f"archive {reader.store.place}: {name}: {error}") from None
        return Memory(
            place=reader.store.place,
            archive=reader.root.archive,
            root_key=reader.root.key,
            statement=body.decode(),
        )
    return None


async def _publish(store: ArchiveStore, memory: Memory) -> None:
    """What is remembered stands in the archive, too, also where an earlier visit was cut off before that."""
    statement = read_statement(memory.statement.encode(), archive=memory.archive)
    name = witness_name(statement.segment, statement.witness)
    if await store.has(name):
        return  # if it was altered, the check of the archive says so
    try:
        await store.create(name, memory.statement.encode())
    except ArchiveConflict:
        return  # the same witness, at the same time
