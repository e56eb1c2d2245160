"""Where an archive's files lie: what a folder and an object store have in common, and how each is opened."""

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from relight.engine.archive.folder import FolderStore as FolderStore
from relight.engine.archive.objects import open_bucket
from relight.engine.errors import SettingsError


class ArchiveStore(Protocol):
    """Files by name, `/` between its parts; each is there whole or not at all. All raise `ArchiveUnreachable`."""

    place: str

    async def create(self, name: str, body: bytes) -> None:
        """Writes what is not there yet, durably. Raises `ArchiveConflict` when it is."""

    async def replace(self, name: str, body: bytes) -> None:
        """Writes it durably, whatever was there."""

    async def read(self, name: str) -> bytes:
        """Raises `ArchiveDamaged` when it is not there."""

    async def has(self, name: str) -> bool:
        """Whether it is there."""

    async def is_empty(self) -> bool:
        """Whether nothing at all is there."""

    async def names(self, prefix: str, *, after: str = "") -> list[str]:
        """What begins with the prefix and comes after that name, in order; nothing beside its folder is looked at."""

    def each(self, prefix: str) -> AsyncIterator[str]:
        """The same in no order, and never all of it at once."""

    async def unfinished(self) -> list[str]:
        """What was being written when its writer ended, or still is; no other method tells of it."""

    async def written_at(self, name: str) -> datetime | None:
        """Aware, UTC, by the store's clock; nothing where it is not there."""

    async def delete(self, name: str) -> None:
        """Durably; it need not be there."""


def open_store(where: str) -> ArchiveStore:
    """A folder's path, `file:///…`, or `s3://bucket/prefix`. Raises `SettingsError`; nothing is asked of it yet."""
    parts = urlsplit(where)
    match parts.scheme:
        case "s3":
            return open_bucket(where)
        case "file" if parts.netloc in ("", "localhost") and parts.path.startswith("/"):
            return FolderStore(Path(unquote(parts.path)))
        case "" if where:
            return FolderStore(Path(where).expanduser())
    raise SettingsError(f"no archive can lie at {where!r}: name a folder, file:///folder, or s3://bucket/prefix")
