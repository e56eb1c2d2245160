"""Where an archive's files lie: what a folder and an object store have in common, and the folder."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import uuid_utils

from relight.engine.errors import ArchiveConflict, ArchiveDamaged, ArchiveUnreachable

PARTIAL = ".partial-"

T = TypeVar("T")


class ArchiveStore(Protocol):
    """Files by name, `/` between its parts; each is there whole or not at all. All raise `ArchiveUnreachable`."""

    place: str

    async def create(self, name: str, body: bytes) -> None:
        """Writes what is not there yet, durably. Raises `ArchiveConflict` when it is."""

    async def replace(self, name: str, body: bytes) -> None:
        """Writes it durably, whatever was there."""

    async def read(self, name: str) -> bytes:
        """Raises `ArchiveDamaged` when it is not there."""
        raise NotImplementedError

    async def names(self, prefix: str) -> list[str]:
        """What begins with the prefix, in order."""
        raise NotImplementedError

    async def delete(self, name: str) -> None:
        """Durably; it need not be there."""


def open_store(where: str) -> ArchiveStore:
    """A folder's path."""
    return FolderStore(Path(where).expanduser())


class FolderStore:
    """A folder; files are fsynced, and so are the folders that name them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.place = str(folder)

    async def create(self, name: str, body: bytes) -> None:
        await self._done(lambda: self._write(name, body, anew=True))

    async def replace(self, name: str, body: bytes) -> None:
        await self._done(lambda: self._write(name, body, anew=False))

    async def read(self, name: str) -> bytes:
        return await self._done(lambda: self._read(name))

    async def names(self, prefix: str) -> list[str]:
        return await self._done(lambda: self._names(prefix))

    async def delete(self, name: str) -> None:
        await self._done(lambda: self._delete(name))

    async def _done(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            raise ArchiveUnreachable(
                f"archive {self.place}: {error.filename or ''} {error.strerror or error}; check the disk and its rights"
            ) from error

    def _write(self, name: str, body: bytes, *, anew: bool) -> None:
        path = self._folder / name
        _make_folders(path.parent)
        partial = path.with_name(f"{PARTIAL}{uuid_utils.uuid4().hex}")
        try:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            if anew:
                os.link(partial, path)  # unlike a rename, it fails where there is one
            else:
                partial.rename(path)
        except FileExistsError as error:
            raise ArchiveConflict(f"archive {self.place}: {name} is there already: nothing was written") from error
        finally:
            partial.unlink(missing_ok=True)
        _sync_folder(path.parent)

    def _read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise ArchiveDamaged(f"archive {self.place}: {name} is not there") from None

    def _names(self, prefix: str) -> list[str]:
        found = (path for path in self._folder.rglob("*") if path.is_file() and not path.name.startswith(PARTIAL))
        names = (path.relative_to(self._folder).as_posix() for path in found)
        return sorted(name for name in names if name.startswith(prefix))

    def _delete(self, name: str) -> None:
        path = self._folder / name
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            _sync_folder(path.parent)


def _make_folders(folder: Path) -> None:
    if not folder.is_dir():
        _make_folders(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
