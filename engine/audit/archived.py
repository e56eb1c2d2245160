"""What an archive knows of publishers' numbers: which it holds, their hashes at the ends of segments, and any other."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from relight.engine.archive.models import Manifest
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.salvage import salvage_segment
from relight.engine.archive.walking import walk_manifests
from relight.engine.errors import ArchiveDamaged
from relight.engine.log.links import link_of
from relight.engine.log.numbers import Ranges, merged, within

Hashes = dict[tuple[str, int], set[str]]
"""Of a publisher's number; more than one where the archive holds several events of it."""


@dataclass(slots=True)
class Archived:
    """By publisher; of segments whose manifest is signed."""

    archive: str = ""
    hashes: dict[str, dict[int, str]] = field(default_factory=dict)
    numbers: dict[str, Ranges] = field(default_factory=dict)

    def head(self, publisher: str) -> tuple[int, str]:
        """The highest number of a publisher that it knows of, and its hash."""
        return max(self.hashes[publisher].items())


async def read_archived(reader: ArchiveReader) -> Archived:
    """From manifests, and from the indexes of segments in which a publisher's numbers have holes or come again."""
    found = Archived(archive=reader.root.archive)
    async for step in walk_manifests(reader):
        if step.manifest is None or not step.vouched:
            continue
        broken = set()
        for span in step.manifest.spans:
            found.hashes.setdefault(span.publisher, {}).setdefault(span.last_pseq, span.last_sha256)
            if span.events == span.last_pseq - span.first_pseq + 1:
                _add(found.numbers, span.publisher, span.first_pseq, span.last_pseq)
            else:
                broken.add(span.publisher)
        if broken:
            await _read_index(reader, step.manifest, broken, found)
    return found


async def archived_hashes(reader: ArchiveReader, asked: Mapping[str, Ranges]) -> Hashes:
    """Of these numbers, as far as it holds them and they are not damaged."""
    found: Hashes = {}
    async for step in walk_manifests(reader):
        if step.manifest is None or not step.vouched or not _may_hold(step.manifest, asked):
            continue
        for message in (await salvage_segment(reader, step)).messages:
            link = link_of(message)
            if link is not None and within(asked.get(link.publisher, []), link.pseq):
                found.setdefault((link.publisher, link.pseq), set()).add(link.sha256)
    return found


async def _read_index(reader: ArchiveReader, manifest: Manifest, publishers: set[str], found: Archived) -> None:
    try:
        index = await reader.index(manifest)
    except ArchiveDamaged:
        return  # the check of the archive itself tells
    numbers: dict[str, Ranges] = {}
    for owner, pseq in zip(index.owners, index.pseqs, strict=True):
        if owner >= 0 and index.publishers[owner] in publishers:
            numbers.setdefault(index.publishers[owner], []).append((pseq, pseq))
    for publisher, ranges in numbers.items():
        found.numbers[publisher] = merged((*found.numbers.get(publisher, []), *ranges))


def _add(numbers: dict[str, Ranges], publisher: str, first: int, last: int) -> None:
    ranges = numbers.setdefault(publisher, [])
    if ranges and ranges[-1][1] + 1 == first:
        ranges[-1] = (ranges[-1][0], last)
    else:
        ranges[:] = merged((*ranges, (first, last)))


def _may_hold(manifest: Manifest, asked: Mapping[str, Ranges]) -> bool:
    return any(
        last >= span.first_pseq and first <= span.last_pseq
        for span in manifest.spans
        for first, last in asked.get(span.publisher, ())
    )
