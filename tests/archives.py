"""Archives for tests: in memory, small, with several publishers and segments."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from folding import event_id
from stack import encoded, failed

from relight.engine.archive.keys import SigningKey
from relight.engine.archive.models import ROOT
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.sealing import found_archive, seal_next
from relight.engine.archive.segment import Segment
from relight.engine.archive.store import ArchiveStore
from relight.engine.errors import ArchiveConflict, ArchiveDamaged
from relight.engine.log.chain import body_sha256
from relight.engine.log.reader import Message
from relight.events.envelope import GENESIS

NOW = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)
START_NS = 1_773_480_413_589_793_238


def signing_key(name: str = "archiver") -> SigningKey:
    """The same key for the same name."""
    return SigningKey(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()))


class MemoryStore:
    """An archive's files in a dictionary, for tests that change thousands of them."""

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.files = dict(files or {})
        self.place = "memory"

    async def create(self, name: str, body: bytes) -> None:
        if name in self.files:
            raise ArchiveConflict(f"{name} is there already")
        self.files[name] = body

    async def replace(self, name: str, body: bytes) -> None:
        self.files[name] = body

    async def read(self, name: str) -> bytes:
        if name not in self.files:
            raise ArchiveDamaged(f"{name} is not there")
        return self.files[name]

    async def has(self, name: str) -> bool:
        return name in self.files

    async def is_empty(self) -> bool:
        return not self.files

    async def names(self, prefix: str, *, after: str = "") -> list[str]:
        return sorted(name for name in self.files if name.startswith(prefix) and name > after)

    async def each(self, prefix: str) -> AsyncIterator[str]:
        for name in await self.names(prefix):
            yield name

    async def unfinished(self) -> list[str]:
        return []

    async def written_at(self, name: str) -> datetime | None:
        return NOW if name in self.files else None

    async def delete(self, name: str) -> None:
        self.files.pop(name, None)


class Publishers:
    """Writes events of several publishers, each with its chain, onto one stream; in their order or not."""

    def __init__(self, *, first_seq: int = 1) -> None:
        self.next_seq = first_seq
        self._heads: dict[str, tuple[int, str]] = {}

    def event(self, publisher: str = "p-one", *, lost: bool = False, n: int | None = None) -> Message:
        """Its next one; `lost` ones take a number but no place on the stream."""
        pseq, prev = self._heads.get(publisher, (0, GENESIS))
        ordinal = (pseq + 1) * 100 + sum(publisher.encode()) % 100
        subject, body = encoded(
            failed(pseq if n is None else n),
            id=event_id(ordinal, ordinal),
            time=NOW,
            pseq=pseq + 1,
            prev=prev,
            publisher=publisher,
        )
        self._heads[publisher] = (pseq + 1, body_sha256(body))
        message = Message(self.next_seq, START_NS + self.next_seq, subject, body, event_id(ordinal, ordinal))
        self.next_seq += not lost
        return message

    def again(self, message: Message, *, suffix: str = "#h1") -> Message:
        """Published once more, here and now."""
        copy = Message(
            self.next_seq, START_NS + self.next_seq, message.subject, message.body, message.message_id + suffix
        )
        self.next_seq += 1
        return copy

    def events(self, *publishers: str) -> list[Message]:
        return [self.event(publisher) for publisher in publishers]

    def head(self, publisher: str) -> tuple[int, str]:
        return self._heads[publisher]


async def sealed(
    store: ArchiveStore, *segments: Sequence[Message], key: SigningKey | None = None, incarnation: int = 1
) -> list[Segment]:
    """Seals each list of messages as the archive's next segment, founding it where it is not."""
    key = key or signing_key()
    reader = await ArchiveReader.open(store) if await store.has(ROOT) else await found_archive(store, key, now=NOW)
    head, found = await reader.head(), []
    for messages in segments:
        segment, head = await seal_next(
            reader, messages, head, incarnation=incarnation, key=key, sealed_at=NOW + timedelta(minutes=head.segment)
        )
        found.append(segment)
    return found
