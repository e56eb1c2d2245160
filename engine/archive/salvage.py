"""Everything of an archive that is still readable, segment by segment, and what is not."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import orjson
from pydantic import ValidationError

from relight.engine.archive.frames import Entry, Harmed, described, salvaged_entries, sound_entries, unsigned_entries
from relight.engine.archive.models import SEGMENTS, File, Index, Manifest
from relight.engine.archive.reading import ArchiveReader, decompressed
from relight.engine.archive.walking import Step, walk_manifests
from relight.engine.errors import ArchiveDamaged
from relight.engine.log.reader import Message

DIGITS = 16
"""Of its SHA-256, in a file's name."""
MESSAGES = ".messages.zst"


@dataclass(frozen=True, slots=True, kw_only=True)
class Salvaged:
    """A segment, or a run of them that is not there.

    `entries`: its messages in order, those that are harmed included; of a segment that is not vouched for they are
    what its files say, which nobody signed. `faults`: what is wrong with its files, beside what `entries` tell.
    `sound`: nothing is wrong with it.
    """

    step: Step
    entries: Sequence[Entry] = ()
    index: Index | None = None
    faults: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        return not self.step.faults and not self.faults and not self.harmed

    @property
    def messages(self) -> list[Message]:
        return [entry for entry in self.entries if isinstance(entry, Message)]

    @property
    def harmed(self) -> list[Harmed]:
        return [entry for entry in self.entries if isinstance(entry, Harmed)]


async def salvage_archive(reader: ArchiveReader) -> AsyncIterator[Salvaged]:
    """One segment in memory at a time; no damage ends it. Raises `ArchiveUnreachable`."""
    async for step in walk_manifests(reader):
        if step.is_there:
            yield await salvage_segment(reader, step)
            continue
        yield Salvaged(step=step)
        for segment in await _left(reader, step.segment, step.last):
            part = Step(segment=segment, last=segment)
            yield Salvaged(step=part, entries=await _unsigned(reader, segment))


async def salvage_segment(reader: ArchiveReader, step: Step) -> Salvaged:
    """What its files hold."""
    if step.vouched and step.manifest is not None:
        manifest = step.manifest
        index, index_fault = await _index(reader, manifest)
        body = await _whole(reader, manifest.messages_file.name)
        entries, fault = _entries(manifest, body, index)
        return Salvaged(step=step, entries=entries, index=index, faults=tuple(filter(None, (index_fault, fault))))
    return Salvaged(step=step, entries=await _unsigned(reader, step.segment))


def _entries(manifest: Manifest, body: bytes | None, index: Index | None) -> tuple[list[Entry], str]:
    """What the messages' file holds, and what is wrong with it that no entry tells."""
    file = manifest.messages_file
    if body is None:
        harmed = [described(index, at) if index else Harmed() for at in range(manifest.messages)]
        return list(harmed), f"{file.name} is not there"
    if _is(file, body):
        try:
            return sound_entries(body, manifest.frames), ""
        except ArchiveDamaged as error:
            return [], f"{file.name} was sealed as it is, but {error}"
    entries = list(salvaged_entries(body, manifest.frames, index))
    return entries, f"{file.name} was altered since it was sealed"


async def _index(reader: ArchiveReader, manifest: Manifest) -> tuple[Index | None, str]:
    file = manifest.index_file
    body = await _whole(reader, file.name)
    if body is None:
        return None, f"{file.name} is not there"
    if not _is(file, body):
        return None, f"{file.name} was altered since it was sealed"
    try:
        index = Index.model_validate(orjson.loads(decompressed(body)))
    except (ArchiveDamaged, ValueError, ValidationError) as error:
        return None, f"{file.name} was sealed as it is, but {error}"
    columns = (index.seqs, index.owners, index.pseqs, index.sizes, index.leaves[::16])
    if {len(column) for column in columns} != {manifest.messages}:
        return None, f"{file.name} was sealed as it is, but does not describe {manifest.messages} messages"
    return index, ""


async def _left(reader: ArchiveReader, first: int, last: int) -> list[int]:
    """Segments of which only the files beside the manifest are there."""
    names = [name.removeprefix(SEGMENTS) for name in await reader.store.names(SEGMENTS) if name.endswith(MESSAGES)]
    numbers = {int(name.partition("-")[0]) for name in names if name.partition("-")[0].isdecimal()}
    return sorted(number for number in numbers if first <= number <= last)


async def _unsigned(reader: ArchiveReader, segment: int) -> list[Entry]:
    """Of the segment's files that are as their names say, the one with the most messages."""
    best: list[Entry] = []
    for name in await reader.store.names(f"{SEGMENTS}{segment:012d}-"):
        body = await _whole(reader, name) if name.endswith(MESSAGES) else None
        if body is not None and name == f"{SEGMENTS}{segment:012d}-{sha256(body).hexdigest()[:DIGITS]}{MESSAGES}":
            try:
                best = max(best, unsigned_entries(body), key=len)
            except ArchiveDamaged:
                continue
    return best


async def _whole(reader: ArchiveReader, name: str) -> bytes | None:
    try:
        return await reader.store.read(name)
    except ArchiveDamaged:
        return None


def _is(file: File, body: bytes) -> bool:
    return len(body) == file.size_bytes and sha256(body).hexdigest() == file.sha256
