"""Clears away what interrupted archivers left: unfinished writes, and files that the sealed segment does not name."""

from collections import defaultdict
from datetime import datetime, timedelta

from relight.engine.archive.models import SEGMENTS
from relight.engine.archive.reading import ArchiveReader
from relight.engine.errors import ArchiveDamaged

OLD_S = 86_400.0
OF_A_SEGMENT = 2
"""Files beside its manifest."""


async def clear_leftovers(reader: ArchiveReader, *, now: datetime, older_s: float = OLD_S) -> list[str]:
    """Deletes them, and says which.

    Files of a segment that has no manifest stay: it may have been taken away, and they are all that is left of it. So
    do those of one whose manifest is not right.
    """
    store, before = reader.store, now - timedelta(seconds=older_s)
    cleared = []
    for name in [*await store.unfinished(), *await _unnamed(reader)]:
        written_at = await store.written_at(name)
        if written_at is not None and written_at < before:
            await store.delete(name)
            cleared.append(name)
    return cleared


async def _unnamed(reader: ArchiveReader) -> list[str]:
    """Files beside a sealed segment's own."""
    files: defaultdict[str, list[str]] = defaultdict(list)
    for name in await reader.store.names(SEGMENTS):
        if name.endswith(".zst"):
            files[name.removeprefix(SEGMENTS).partition("-")[0]].append(name)
    found = []
    for number, names in files.items():
        if len(names) > OF_A_SEGMENT and number.isdecimal():
            try:
                manifest, _ = await reader.manifest(int(number))
            except ArchiveDamaged:
                continue
            own = (manifest.messages_file.name, manifest.index_file.name)
            found += [name for name in names if name not in own]
    return found
