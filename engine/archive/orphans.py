"""Files of segments that nobody sealed: left by an archiver that was killed, or that came second."""

from collections import defaultdict

from relight.engine.archive.models import SEGMENTS
from relight.engine.archive.reading import ArchiveReader
from relight.engine.errors import ArchiveDamaged

PER_SEGMENT = 3
"""Its manifest, its messages, its index."""


async def clear_orphans(reader: ArchiveReader, last: int) -> list[str]:
    """Deletes what no manifest names, up to segment `last`: of a later one somebody may be at work on it just now."""
    files: dict[int, list[str]] = defaultdict(list)
    for name in await reader.store.names(SEGMENTS):
        number = name.removeprefix(SEGMENTS)[:12]
        if number.isdecimal() and int(number) <= last:
            files[int(number)].append(name)
    cleared = []
    for segment, names in files.items():
        if len(names) <= PER_SEGMENT:
            continue
        try:
            manifest, _ = await reader.manifest(segment)
        except ArchiveDamaged:
            continue  # which of them are its own cannot be known
        owned = {manifest.messages_file.name, manifest.index_file.name}
        cleared += [name for name in names if name.endswith(".zst") and name not in owned]
    for name in cleared:
        await reader.store.delete(name)
    return cleared
