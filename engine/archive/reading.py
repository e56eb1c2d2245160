"""Reads an archive back: root and keys, manifests in order, a segment's messages; and believes signatures only."""

import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence

import orjson
import zstandard

from relight.engine.archive.keyring import Fault, Keyring, read_keyring
from relight.engine.archive.keys import signed_by
from relight.engine.archive.models import SEGMENTS, Index, Manifest, Root, manifest_name
from relight.engine.archive.records import decode_record, split_records
from relight.engine.archive.roots import believed_root, read_root
from relight.engine.archive.segment import Head, head_of
from relight.engine.archive.signed import read_document, signed_part
from relight.engine.archive.store import ArchiveStore
from relight.engine.errors import ArchiveDamaged
from relight.engine.log.reader import Message


class ArchiveReader:
    """Of an archive that exists; `faults`: what is wrong with its root and keys."""

    def __init__(self, store: ArchiveStore, root: Root, keyring: Keyring, faults: Sequence[Fault]) -> None:
        self.store = store
        self.root = root
        self.keyring = keyring
        self.faults = faults

    @classmethod
    async def open(cls, store: ArchiveStore, *, trust: str | None = None) -> "ArchiveReader":
        """Raises `ArchiveDamaged` where its root or keys are not right, or `trust` is no key of this archive."""
        root = await read_root(store)
        keyring, faults = await read_keyring(store, root)
        if faults:
            raise ArchiveDamaged(f"archive {store.place}: {faults[0].name}: {faults[0].detail}")
        if trust is not None and trust not in keyring.believed:
            raise ArchiveDamaged(
                f"archive {store.place}: key {trust}, which is to be trusted, is none of its keys: its first is"
                f" {root.key}; this is another archive, or it was rewritten"
            )
        return cls(store, root, keyring, ())

    @classmethod
    async def open_damaged(cls, store: ArchiveStore) -> "ArchiveReader":
        """With as much of its root and keys as can be believed. Raises `ArchiveDamaged` where that is nothing."""
        root, faults = await believed_root(store)
        keyring, more = await read_keyring(store, root)
        return cls(store, root, keyring, [*faults, *more])

    async def read_keys(self) -> None:
        """Anew: others may have been endorsed. Raises `ArchiveDamaged`."""
        self.keyring = (await ArchiveReader.open(self.store)).keyring

    async def segments(self, *, after: int = 0) -> list[int]:
        """The numbers of the segments that are there, in order."""
        names = await self.store.names(SEGMENTS, after=manifest_name(after) if after else "")
        numbers = (name.removeprefix(SEGMENTS).removesuffix(".json") for name in names if name.endswith(".json"))
        return sorted(int(number) for number in numbers if number.isascii() and number.isdecimal())

    async def manifest(self, segment: int, after: Head | None = None) -> tuple[Manifest, Head]:
        """Signed by a key of the archive's, and if `after` is given, following it. Raises `ArchiveDamaged`."""
        name = manifest_name(segment)
        body = await self.store.read(name)
        try:
            document, signature = signed_part(body)
            manifest = read_document(document, Manifest)
        except ArchiveDamaged as error:
            raise ArchiveDamaged(f"archive {self.store.place}: {name}: {error}") from None
        public = self.keyring.public(manifest.key)
        if public is None or not signed_by(public, document, signature):
            raise ArchiveDamaged(f"archive {self.store.place}: {name} is not signed by a key of this archive")
        if (manifest.archive, manifest.segment) != (self.root.archive, segment):
            raise ArchiveDamaged(f"archive {self.store.place}: {name} belongs elsewhere")
        if after is not None and (manifest.previous_sha256, segment) != (after.manifest_sha256, after.segment + 1):
            raise ArchiveDamaged(f"archive {self.store.place}: {name} does not follow segment {after.segment}")
        before = self.root.key if after is None or not after.segment else after.key
        if not self.keyring.leads(before, manifest.key, segment=segment):
            raise ArchiveDamaged(f"archive {self.store.place}: {name} is signed by a key that does not speak for it")
        return manifest, head_of(manifest, body)

    async def manifests(self, first: int = 1) -> AsyncIterator[tuple[Manifest, Head]]:
        """All from that one on, each following the one before. Raises `ArchiveDamaged`."""
        head = Head(archive=self.root.archive) if first == 1 else (await self.manifest(first - 1))[1]
        for segment in await self.segments(after=first - 1):
            manifest, head = await self.manifest(segment, head)
            yield manifest, head

    async def head(self) -> Head:
        """The last sealed segment's. Raises `ArchiveDamaged`."""
        segments = await self.segments()
        return (await self.manifest(segments[-1]))[1] if segments else Head(archive=self.root.archive)

    async def index(self, manifest: Manifest) -> Index:
        """Raises `ArchiveDamaged`."""
        body = await self._file(manifest.index_file.name, manifest.index_file.sha256)
        return Index.model_validate(orjson.loads(decompressed(body)))

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
    for record in split_records(decompressed(body[offset_bytes:])):
        yield decode_record(record)


def decompressed(body: bytes) -> bytes:
    """Of the first frame in `body`. Raises `ArchiveDamaged`."""
    try:
        return zstandard.ZstdDecompressor().decompressobj().decompress(body)
    except zstandard.ZstdError as error:
        raise ArchiveDamaged(f"cannot be decompressed: {error}") from None
