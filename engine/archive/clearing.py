"""Clears away what was being written when its writer ended."""

from datetime import datetime, timedelta

from relight.engine.archive.store import ArchiveStore

OLD_S = 86_400.0


async def clear_unfinished(store: ArchiveStore, *, now: datetime, older_s: float = OLD_S) -> list[str]:
    """Deletes what is older than that, for the rest may still be written; says what it was."""
    before = now - timedelta(seconds=older_s)
    cleared = []
    for name in await store.unfinished():
        written_at = await store.written_at(name)
        if written_at is not None and written_at < before:
            await store.delete(name)
            cleared.append(name)
    return cleared
