"""Everything of an archive that is still readable, segment by segment, and what is not."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from relight.engine.archive.models import Index, Manifest
from relight.engine.archive.reading import ArchiveReader, frame_messages
from relight.engine.archive.walking import Step, walk_manifests
from relight.engine.errors import ArchiveDamaged
from relight.engine.log.reader import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Harmed:
    """A message that is not as it was sealed; the index says where it stood and whose it was, if it is whole."""

    seq: int | None = None
    publisher: str | None = None
    pseq: int | None = None


Entry = Message | Harmed


@dataclass(frozen=True, slots=True, kw_only=True)
class Salvaged:
    """A segment, or a run of them that is not there.

    `entries`: its messages in order, those that are harmed included. `faults`: what is wrong with its files.
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
        yield await salvage_segment(reader, step)


async def salvage_segment(reader: ArchiveReader, step: Step) -> Salvaged:
    """What its files hold."""
    if not step.vouched or step.manifest is None:
        return Salvaged(step=step)
    manifest = step.manifest
    try:
        return Salvaged(step=step, entries=await reader.messages(manifest))
    except ArchiveDamaged as error:
        return Salvaged(step=step, entries=await _frames(reader, manifest), faults=(str(error),))


async def _frames(reader: ArchiveReader, manifest: Manifest) -> list[Entry]:
    try:
        index: Index | None = await reader.index(manifest)
    except ArchiveDamaged:
        index = None
    try:
        body = await reader.store.read(manifest.messages_file.name)
    except ArchiveDamaged:
        body = b""
    entries: list[Entry] = []
    first = 0
    for frame in manifest.frames:
        part = body[frame.offset_bytes : frame.offset_bytes + frame.size_bytes]
        if sha256(part).hexdigest() == frame.sha256:
            entries += frame_messages(part, 0)
        else:
            entries += [_described(index, at) for at in range(first, first + frame.messages)]
        first += frame.messages
    return entries


def _described(index: Index | None, at: int) -> Harmed:
    if index is None:
        return Harmed()
    owner = index.owners[at]
    publisher = index.publishers[owner] if owner >= 0 else None
    return Harmed(seq=index.seqs[at], publisher=publisher, pseq=index.pseqs[at] if publisher else None)
