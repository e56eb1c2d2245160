"""An archive in a folder."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TypeVar

import uuid_utils

from relight.engine.archive.keys import sync_folder
from relight.engine.errors import ArchiveConflict, ArchiveDamaged, ArchiveUnreachable

PARTIAL = ".partial-"
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)
NAMES_AT_ONCE = 1_000

T = TypeVar("T")


class FolderStore:
    """Files are fsynced, and so are the folders that name them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.place = str(folder)

    async def create(self, name: str, body: bytes) -> None:
        await self._done(lambda: self._write(name, body, anew=True))

    async def replace(self, name: str, body: bytes) -> None:
        await self._done(lambda: self._write(name, body, anew=False))

    async def read(self, name: str) -> bytes:
        return await self._done(lambda: self._read(name))

    async def has(self, name: str) -> bool:
        return await self._done(lambda: (self._folder / name).is_file())

    async def is_empty(self) -> bool:
        return await self._done(lambda: next(self._walk(""), None) is None)

    async def names(self, prefix: str, *, after: str = "") -> list[str]:
        return await self._done(lambda: sorted(name for name in self._walk(prefix) if name > after))

    async def each(self, prefix: str) -> AsyncIterator[str]:
        walk = self._walk(prefix)
        while names := await self._done(lambda: list(islice(walk, NAMES_AT_ONCE))):
            for name in names:
                yield name

    async def unfinished(self) -> list[str]:
        return await self._done(lambda: sorted(self._walk("", partial=True)))

    async def written_at(self, name: str) -> datetime | None:
        return await self._done(lambda: self._written_at(name))

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
                self._link(partial, path)
            else:
                partial.rename(path)
        except FileExistsError as error:
            raise ArchiveConflict(f"archive {self.place}: {name} is there already: nothing was written") from error
        finally:
            partial.unlink(missing_ok=True)
        sync_folder(path.parent)

    def _link(self, partial: Path, path: Path) -> None:
        """Unlike a rename, it fails where there is one."""
        try:
            os.link(partial, path)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            raise ArchiveUnreachable(
                f"archive {self.place}: its file system has no hard links, without which two archivers could seal the"
                " same number; choose a folder on another"
            ) from error

    def _read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise ArchiveDamaged(f"archive {self.place}: {name} is not there") from None

    def _walk(self, prefix: str, *, partial: bool = False) -> Iterator[str]:
        """Only the folder of the prefix is entered, and those below it."""
        below = self._folder / prefix.rpartition("/")[0]
        for folder, _, files in os.walk(below, onerror=_refuse):
            relative = Path(folder).relative_to(self._folder).as_posix()
            for file in files:
                name = file if relative == "." else f"{relative}/{file}"
                if name.startswith(prefix) and file.startswith(PARTIAL) == partial:
                    yield name

    def _written_at(self, name: str) -> datetime | None:
        try:
            return datetime.fromtimestamp((self._folder / name).stat().st_mtime, UTC)
        except FileNotFoundError:
            return None

    def _delete(self, name: str) -> None:
        path = self._folder / name
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            sync_folder(path.parent)


def _refuse(error: OSError) -> None:
    """A folder that is not there holds nothing; one that cannot be looked into is not taken for empty."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _make_folders(folder: Path) -> None:
    if not folder.is_dir():
        _make_folders(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)
