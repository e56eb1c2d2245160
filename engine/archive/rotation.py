"""Rotates the key that seals: a new one, endorsed by the old one in the archive, takes its place in the file."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from relight.engine.archive.keys import SigningKey, make_key, read_key, sync_folder
from relight.engine.archive.models import key_name
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.sealing import state_key
from relight.engine.archive.store import ArchiveStore
from relight.engine.errors import ArchiveConflict, ArchiveError


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """`kept`: where the old private key lies now; None where it was deleted."""

    old: str
    new: str
    after_segment: int
    kept: str | None


async def rotate_key(store: ArchiveStore, path: Path, *, now: datetime, keep_old: bool) -> Rotated:
    """The archiver takes the new key up with its next segment, and that segment ends the old one.

    Cut off anywhere, it is finished by doing it again: the new key lies beside the old one until the archive states it,
    and only then takes its place. Raises `ArchiveError` where this key may not endorse another.
    """
    with _alone(path):
        old, following = read_key(path), path.with_name(f"{path.name}.next")
        reader = await ArchiveReader.open(store)
        head = await reader.head()
        if old.id != (head.key or reader.root.key) and not reader.keyring.leads(
            head.key or reader.root.key, old.id, segment=head.segment + 1
        ):
            raise ArchiveError(
                f"archive {store.place} is sealed by key {head.key or reader.root.key}, and {path} holds {old.id}: only"
                " the former can endorse another; give it by RELIGHT_ARCHIVE_KEY"
            )
        make_key(following)
        new = read_key(following)
        await _state(reader, new, old, now=now)
        kept = path.with_name(f"{path.stem}-{old.id}{path.suffix}") if keep_old else None
        if kept is not None and not kept.exists():
            os.link(path, kept)
        following.replace(path)
        sync_folder(path.parent)
    statement = (await ArchiveReader.open(store)).keyring.believed[new.id]
    return Rotated(old=old.id, new=new.id, after_segment=statement.after_segment, kept=str(kept) if kept else None)


async def _state(reader: ArchiveReader, new: SigningKey, old: SigningKey, *, now: datetime) -> None:
    if new.id in reader.keyring.believed:
        return  # an earlier attempt was cut off after this
    try:
        await state_key(reader.store, new, endorsed_by=old, after=await reader.head(), now=now)
    except ArchiveConflict:
        raise ArchiveError(
            f"archive {reader.store.place}: {key_name(new.id)} is there already, and no key of the archive endorses it:"
            " somebody else wrote it; move it away and rotate again"
        ) from None


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One rotation of a key at a time; the lock ends with the process."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ArchiveError(
            f"signing key {path}: {error.strerror}; it is made when the first segment is sealed, and only then rotated"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ArchiveError(f"signing key {path} is being rotated by another process: wait for it") from None
    finally:
        os.close(descriptor)
