"""What follows from an archive's segments, kept in it: a cache, so that starting does not read thousands of them."""

import asyncio
import logging

import orjson
import zstandard
from pydantic import ValidationError

from relight.engine.archive.chains import Run, SealedChains, SealedHead
from relight.engine.archive.coverage import Coverage
from relight.engine.archive.keys import SigningKey
from relight.engine.archive.models import FORMAT, Part, Whole
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.sealed import Sealed
from relight.engine.archive.trust import vouched
from relight.engine.errors import ArchiveDamaged
from relight.events.values import Sha256, Time

CHECKPOINTS = "checkpoints/"
KEPT = 2
LEVEL = 3

log = logging.getLogger(__name__)


class Checkpoint(Part):
    """As of the segment with this manifest; `sha256s` are those of all heads, one after the other."""

    format: int
    archive: str
    segment: Whole
    manifest_sha256: Sha256
    sealed_at: Time
    key: str
    messages: Whole
    size_bytes: Whole
    highest_seq: Whole
    missing: tuple[tuple[int, int], ...]
    missing_messages: Whole
    unread: tuple[int, ...]
    forks: Whole
    publishers: tuple[str, ...]
    pseqs: tuple[int, ...]
    sha256s: str
    runs: dict[str, tuple[Run, ...]]


async def save_checkpoint(reader: ArchiveReader, key: SigningKey, sealed: Sealed) -> None:
    """Of the earlier ones one is kept."""
    body = await asyncio.to_thread(_encoded, key, sealed)
    await reader.store.replace(f"{CHECKPOINTS}{sealed.head.segment:012d}.zst", body)
    for name in (await reader.store.names(CHECKPOINTS))[:-KEPT]:
        await reader.store.delete(name)


def _encoded(key: SigningKey, sealed: Sealed) -> bytes:
    """One line of JSON, and one with who signed exactly these bytes, and how."""
    assert sealed.sealed_at is not None
    chains, coverage = sealed.chains, sealed.coverage
    checkpoint = Checkpoint(
        format=FORMAT,
        archive=sealed.head.archive,
        segment=sealed.head.segment,
        manifest_sha256=sealed.head.manifest_sha256,
        sealed_at=sealed.sealed_at,
        key=sealed.key,
        messages=sealed.messages,
        size_bytes=sealed.size_bytes,
        highest_seq=coverage.highest_seq,
        missing=tuple(coverage.missing),
        missing_messages=coverage.missing_messages,
        unread=tuple(sorted(sealed.unread)),
        forks=chains.forks,
        publishers=tuple(chains.heads),
        pseqs=tuple(head.pseq for head in chains.heads.values()),
        sha256s="".join(head.sha256 for head in chains.heads.values()),
        runs={publisher: tuple(runs) for publisher, runs in chains.runs.items()},
    )
    document = orjson.dumps(checkpoint.model_dump(mode="json"))
    return zstandard.compress(b"%b\n%b\n" % (document, f"{key.id} {key.sign(document)}".encode()), LEVEL)


async def load_checkpoint(reader: ArchiveReader, last: int) -> Sealed | None:
    """The latest one that is signed by a key of the archive's and holds for a segment that is there."""
    for name in reversed(await reader.store.names(CHECKPOINTS)):
        try:
            found = await _loaded(reader, name)
        except ArchiveDamaged as error:
            log.warning("checkpoint %s is not used: %s", name, error, extra={"action": "checkpoint_refused"})
            continue
        if found.head.segment <= last:
            return found
    return None


async def _loaded(reader: ArchiveReader, name: str) -> Sealed:
    try:
        body = zstandard.ZstdDecompressor().decompressobj().decompress(await reader.store.read(name))
        document, _, signed = body.partition(b"\n")
        key, _, signature = signed.decode().strip().partition(" ")
        found = Checkpoint.model_validate_json(document)
    except (zstandard.ZstdError, ValidationError, UnicodeDecodeError) as error:
        raise ArchiveDamaged(f"it cannot be read: {error}") from None
    if not vouched(reader, key, document, signature):
        raise ArchiveDamaged("it is not signed by a key of this archive")
    _, head = await reader.manifest(found.segment)
    if (found.archive, found.manifest_sha256) != (head.archive, head.manifest_sha256):
        raise ArchiveDamaged(f"segment {found.segment} is another than it was")
    chains = SealedChains()
    chains.forks = found.forks
    for i, (publisher, pseq) in enumerate(zip(found.publishers, found.pseqs, strict=True)):
        chains.heads[publisher] = SealedHead(pseq, found.sha256s[64 * i : 64 * i + 64])
    chains.runs = {publisher: list(runs) for publisher, runs in found.runs.items()}
    return Sealed(
        head=head,
        sealed_at=found.sealed_at,
        key=found.key,
        messages=found.messages,
        size_bytes=found.size_bytes,
        chains=chains,
        coverage=Coverage(found.highest_seq, found.missing, found.missing_messages),
        unread=set(found.unread),
    )
