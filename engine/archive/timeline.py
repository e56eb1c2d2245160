"""What an archive holds of the stream as it is now: every sequence once, of the last incarnation that has it."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from relight.engine.archive.reading import ArchiveReader
from relight.engine.log.reader import Message


@dataclass(frozen=True, slots=True)
class Stretch:
    """A segment, and up to where its messages count: what follows was replaced after a rewind."""

    segment: int
    first_seq: int
    through_seq: int


async def stretches(archive: ArchiveReader) -> list[Stretch]:
    """In ascending sequence. Raises `ArchiveDamaged` where a manifest is not right."""
    found = [
        Stretch(manifest.segment, manifest.first_seq, manifest.last_seq) async for manifest, _ in archive.manifests()
    ]
    replaced_from, standing = 1 << 62, list[Stretch]()
    for stretch in reversed(found):
        through_seq = min(stretch.through_seq, replaced_from - 1)
        if stretch.first_seq <= through_seq:
            standing.append(Stretch(stretch.segment, stretch.first_seq, through_seq))
        replaced_from = min(replaced_from, stretch.first_seq)
    return standing[::-1]


async def sealed_messages(
    archive: ArchiveReader, found: Sequence[Stretch], *, after_seq: int = 0, through_seq: int
) -> AsyncIterator[Sequence[Message]]:
    """A segment's at a time, in order. Raises `ArchiveDamaged`."""
    for stretch in found:
        last = min(stretch.through_seq, through_seq)
        if last > after_seq and stretch.first_seq <= last:
            manifest, _ = await archive.manifest(stretch.segment)
            messages = [m for m in await archive.messages(manifest) if after_seq < m.seq <= last]
            if messages:
                yield messages
