"""Reads an archive back: root and keys, manifests in order, a segment's messages; and believes signatures only."""

import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import NamedTuple

import orjson
import zstandard
from pydantic import ValidationError

from relight.engine.archive.keys import key_id, signed_by
from relight.engine.archive.models import (
    KEYS,
    ROOT,
    SEGMENTS,
    Index,
    KeyStatement,
    Manifest,
    Root,
    manifest_name,
)
from relight.engine.archive.records import decode_record, split_records
from relight.engine.archive.segment import Head, head_of, read_manifest, signed_part
from relight.engine.archive.store import ArchiveStore
from relight.engine.errors import ArchiveDamaged
from relight.engine.log.reader import Message

MAX_FRAME_BYTES = 512 << 20
"""Decompressed; no frame of ours comes near."""


class Fault(NamedTuple):
    """What is wrong with one of the archive's own files."""

    name: str
    detail: str


class ArchiveReader:
    """Of an archive that exists; `open` raises `ArchiveDamaged` where its root or keys are not right."""

    def __init__(self, store: ArchiveStore, root: Root, keys: dict[str, bytes]) -> None:
        self.store = store
        self.root = root
        self._keys = keys
        self.faults: Sequence[Fault] = ()

    @classmethod
    async def open(cls, store: ArchiveStore) -> "ArchiveReader":
        try:
            root = Root.model_validate_json(await store.read(ROOT))
        except ValidationError as error:
            raise ArchiveDamaged(f"archive {store.place}: {ROOT} is damaged or of a newer release: {error}") from None
        return cls(store, root, await _believed_keys(store, root))

    @classmethod
    async def open_damaged(cls, store: ArchiveStore) -> "ArchiveReader":
        """With as much of its root and keys as can be believed. Raises `ArchiveDamaged` where that is nothing."""
        return await cls.open(store)

    async def segments(self) -> list[int]:
        """The numbers of the segments that are there, in order."""
        names = await self.store.names(SEGMENTS)
        numbers = (name.removeprefix(SEGMENTS).removesuffix(".json") for name in names if name.endswith(".json"))
        return sorted(int(number) for number in numbers if number.isdecimal())

    async def manifest(self, segment: int, after: Head | None = None) -> tuple[Manifest, Head]:
        """Signed by a key of the archive's, and if `after` is given, following it. Raises `ArchiveDamaged`."""
        name = manifest_name(segment)
        body = await self.store.read(name)
        try:
            document, signature = signed_part(body)
            manifest = read_manifest(document)
        except ArchiveDamaged as error:
            raise ArchiveDamaged(f"archive {self.store.place}: {name}: {error}") from None
        public = self._keys.get(manifest.key)
        if public is None or not signed_by(public, document, signature):
            raise ArchiveDamaged(f"archive {self.store.place}: {name} is not signed by a key of this archive")
        if (manifest.archive, manifest.segment) != (self.root.archive, segment):
            raise ArchiveDamaged(f"archive {self.store.place}: {name} belongs elsewhere")
        if after is not None and manifest.previous_sha256 != after.manifest_sha256:
            raise ArchiveDamaged(f"archive {self.store.place}: {name} does not follow segment {after.segment}")
        return manifest, head_of(manifest, body)

    async def manifests(self, first: int = 1) -> AsyncIterator[tuple[Manifest, Head]]:
        """All from that one on, each following the one before. Raises `ArchiveDamaged`."""
        head = Head(archive=self.root.archive) if first == 1 else (await self.manifest(first - 1))[1]
        for segment in await self.segments():
            if segment >= first:
                manifest, head = await self.manifest(segment, head)
                yield manifest, head

    async def index(self, manifest: Manifest) -> Index:
        """Raises `ArchiveDamaged`."""
        body = await self._file(manifest.index_file.name, manifest.index_file.sha256)
        return Index.model_validate(orjson.loads(_decompressed(body)))

    async def messages(self, manifest: Manifest) -> Sequence[Message]:
        """Exactly as sealed. Raises `ArchiveDamaged`."""
        body = await self._file(manifest.messages_file.name, manifest.messages_file.sha256)
        return [message for frame in manifest.frames for message in frame_messages(body, frame.offset_bytes)]

    async def _file(self, name: str, sha256: str) -> bytes:
        body = await self.store.read(name)
        if hashlib.sha256(body).hexdigest() != sha256:
            raise ArchiveDamaged(f"archive {self.store.place}: {name} was altered since it was sealed")
        return body


def frame_messages(body: bytes, offset_bytes: int) -> Iterator[Message]:
    """Of the frame that begins there. Raises `ArchiveDamaged`."""
    for record in split_records(_decompressed(body[offset_bytes:])):
        yield decode_record(record)


def _decompressed(body: bytes) -> bytes:
    """Of the first frame in `body`."""
    try:
        return zstandard.ZstdDecompressor().decompressobj().decompress(body)
    except zstandard.ZstdError as error:
        raise ArchiveDamaged(f"cannot be decompressed: {error}") from None


async def _believed_keys(store: ArchiveStore, root: Root) -> dict[str, bytes]:
    """The root's key, and those that a believed one endorsed."""
    stated: dict[str, KeyStatement] = {}
    for name in await store.names(KEYS):
        try:
            found = KeyStatement.model_validate_json(await store.read(name))
        except ValidationError:
            raise ArchiveDamaged(f"archive {store.place}: {name} is damaged") from None
        stated[found.key] = found
    believed: dict[str, bytes] = {}
    waiting = [root.key]
    while waiting:
        key = waiting.pop()
        statement = stated.get(key)
        if statement is None:
            raise ArchiveDamaged(f"archive {store.place}: the statement of key {key} is missing")
        public = bytes.fromhex(statement.public)
        endorser = public if key == root.key else believed.get(statement.endorsed_by)
        unsigned = statement_body(statement)
        if key_id(public) != key or endorser is None or not signed_by(endorser, unsigned, statement.signature):
            raise ArchiveDamaged(f"archive {store.place}: the statement of key {key} is not signed by its endorser")
        believed[key] = public
        waiting += [other.key for other in stated.values() if other.endorsed_by == key and other.key not in believed]
    return believed


def statement_body(statement: KeyStatement) -> bytes:
    """What is signed."""
    return orjson.dumps(statement.model_dump(mode="json", exclude={"signature"}), option=orjson.OPT_SORT_KEYS)
