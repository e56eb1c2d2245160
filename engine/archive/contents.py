"""Contents in the archive: which ones messages refer to, and copies of them beside the segments."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import zstandard
from nats.js import JetStreamContext

from relight.engine.archive.at_once import Room, at_once
from relight.engine.archive.models import content_name
from relight.engine.archive.store import ArchiveStore
from relight.engine.errors import ArchiveConflict, ArchiveDamaged, ContentErased, ContentError
from relight.engine.log.content import ContentReader
from relight.engine.log.links import document_of
from relight.engine.log.reader import Message
from relight.engine.log.regional_contents import read_elsewhere
from relight.events.subjects import token

AT_ONCE = 8
MAX_BYTES_AT_ONCE = 64 << 20
"""Of contents in memory; a larger one is copied alone."""
REMEMBERED = 100_000
LEVEL = 6
SIZE = "size_bytes"
FIELDS = frozenset({"sha256", SIZE})
HEXADECIMAL = frozenset("0123456789abcdef")


class Reference(NamedTuple):
    """Whose content, and its digest."""

    tenant: str
    sha256: str

    @property
    def name(self) -> str:
        """Its file's, in an archive."""
        return content_name(token(self.tenant), self.sha256)


def references(message: Message) -> frozenset[Reference]:
    """The contents that an event's data refers to, anywhere in it and of whichever version; none of what is no event.

    A dead letter's count too: it may be folded one day.
    """
    if SIZE.encode() not in message.body and b"\\u" not in message.body:
        return frozenset()
    document = document_of(message)
    tenant = document.get("tenant")
    if not isinstance(tenant, str) or not tenant:
        return frozenset()
    return frozenset(Reference(tenant, sha256) for sha256 in _digests(document.get("data")))


def _digests(data: object) -> Iterator[str]:
    waiting = [data]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            sha256 = value.get("sha256")
            if value.keys() == FIELDS and isinstance(sha256, str) and is_digest(sha256):
                yield sha256
            waiting += value.values()


def is_digest(sha256: str) -> bool:
    """Whether it is a SHA-256 as events write it."""
    return len(sha256) == 64 and HEXADECIMAL.issuperset(sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What came of some messages' contents.

    `erased`: deleted on demand; `missing`: neither in the store nor in the archive, lost or refused by its recorder.
    """

    copied: int = 0
    copied_bytes: int = 0
    present: int = 0
    erased: int = 0
    missing: tuple[Reference, ...] = ()


class _Fate(StrEnum):
    COPIED = "copied"
    PRESENT = "present"
    ERASED = "erased"
    MISSING = "missing"


class ContentKeeper:
    """Copies contents from the object store to an archive, those that messages about to be sealed refer to."""

    def __init__(self, js: JetStreamContext, store: ArchiveStore) -> None:
        self._js = js
        self._contents = ContentReader(js)
        self._store = store
        self._known: OrderedDict[Reference, None] = OrderedDict()
        self._room = Room(MAX_BYTES_AT_ONCE)

    async def keep(self, messages: Sequence[Message]) -> Kept:
        """Once it returns, the archive has what could be had. Raises `ArchiveUnreachable`, and NATS' errors."""
        wanted: dict[Reference, None] = {}
        for message in messages:
            wanted |= dict.fromkeys(references(message))
        new = [reference for reference in wanted if reference not in self._known]
        fates = await at_once(AT_ONCE, new, self._keep)
        for reference, (fate, _) in zip(new, fates, strict=True):
            if fate is not _Fate.MISSING:  # that may be mended
                self._remember(reference)
        return Kept(
            copied=sum(fate is _Fate.COPIED for fate, _ in fates),
            copied_bytes=sum(size for fate, size in fates if fate is _Fate.COPIED),
            present=len(wanted) - len(new) + sum(fate is _Fate.PRESENT for fate, _ in fates),
            erased=sum(fate is _Fate.ERASED for fate, _ in fates),
            missing=tuple(reference for reference, (fate, _) in zip(new, fates, strict=True) if fate is _Fate.MISSING),
        )

    async def _keep(self, reference: Reference) -> tuple[_Fate, int]:
        try:
            held = await self._contents.look_up(*reference)
            if held is None:
                return await self._without_store(reference)
            async with self._room.taken(held.size_bytes):
                body = await self._contents.read(*reference, held)
                fate = await self._copy(reference, body)
        except ContentErased:
            return _Fate.ERASED, 0
        except ContentError:
            return await self._without_store(reference)
        now = await self._contents.look_up(*reference)
        if now is not None and now.erased:
            # Marked while it was copied: the erasure may have looked into this archive before the copy was there.
            await self._store.delete(reference.name)
            return _Fate.ERASED, 0
        return fate, len(body)

    async def _copy(self, reference: Reference, body: bytes) -> _Fate:
        packed = await asyncio.to_thread(pack, body)
        try:
            await self._store.create(reference.name, packed)
        except ArchiveConflict:
            if await read_archived(self._store, reference) is not None:
                return _Fate.PRESENT
            await self._store.replace(reference.name, packed)  # what was there was damaged
        return _Fate.COPIED

    async def _without_store(self, reference: Reference) -> tuple[_Fate, int]:
        """A snapshot that the shared bucket lost may stand in a region's own."""
        if await read_archived(self._store, reference) is not None:
            return _Fate.PRESENT, 0
        if (found := await read_elsewhere(self._js, *reference)) is None:
            return _Fate.MISSING, 0
        return await self._copy(reference, found[0]), len(found[0])

    def _remember(self, reference: Reference) -> None:
        self._known[reference] = None
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)


async def read_archived(store: ArchiveStore, reference: Reference) -> bytes | None:
    """The content, if the archive holds it and it is what its name says. Raises `ArchiveUnreachable`."""
    try:
        body = unpack(await store.read(reference.name))
    except ArchiveDamaged:
        return None
    return body if hashlib.sha256(body).hexdigest() == reference.sha256 else None


def pack(body: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(body)


def unpack(packed: bytes) -> bytes:
    """Raises `ArchiveDamaged`."""
    try:
        return zstandard.ZstdDecompressor().decompress(packed)
    except (zstandard.ZstdError, MemoryError) as error:
        raise ArchiveDamaged(f"cannot be decompressed: {error}") from None
