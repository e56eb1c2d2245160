"""The keys that seal an archive, and witnesses of it."""

from dataclasses import dataclass
from datetime import datetime

from relight.engine.app.connections import clock
from relight.engine.archive.keys import kept_key, read_key, sealing_key_path, witness_key_path
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.rotation import Rotated, rotate_key
from relight.engine.archive.store import ArchiveStore, open_store
from relight.engine.archive.witnessing import Witnessed, witness_archive
from relight.engine.errors import SettingsError
from relight.engine.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKey:
    """A key of an archive. `state`: sealing; ended; or stated, which seals the next segment. `here`: this process' own.

    `after_segment`: it speaks for segments beyond that one.
    """

    key: str
    state: str
    after_segment: int
    endorsed_by: str | None
    stated_at: datetime
    here: bool


async def list_keys(settings: Settings, *, where: str | None = None) -> list[KnownKey]:
    """In the order in which they follow each other. Raises `ArchiveDamaged`."""
    reader = await ArchiveReader.open(_store(settings, where), trust=settings.archive_trust)
    sealing = (await reader.head()).key or reader.root.key
    path = sealing_key_path(settings.home, settings.archive_key)
    own = read_key(path).id if path.exists() else None
    order = [statement.key for statement in reader.keyring.keys]
    return [
        KnownKey(
            key=statement.key,
            state=_state(order.index(statement.key) - order.index(sealing)),
            after_segment=statement.after_segment,
            endorsed_by=statement.endorsed_by if statement.endorsed_by != statement.key else None,
            stated_at=statement.stated_at,
            here=statement.key == own,
        )
        for statement in reader.keyring.keys
    ]


async def rotate_archive_key(settings: Settings, *, keep_old: bool) -> Rotated:
    """Raises `ArchiveError`."""
    path = sealing_key_path(settings.home, settings.archive_key)
    return await rotate_key(_store(settings, None), path, now=clock().now(), keep_old=keep_old)


async def witness(settings: Settings, *, where: str | None = None) -> Witnessed:
    """Raises `ArchiveDamaged` where the archive is not what it was, or something new in it is not right."""
    return await witness_archive(
        _store(settings, where),
        kept_key(witness_key_path(settings.home)),
        settings.home,
        region=settings.region,
        now=clock().now(),
        trust=settings.archive_trust,
    )


def _store(settings: Settings, where: str | None) -> ArchiveStore:
    place = where or settings.archive
    if place is None:
        raise SettingsError("no archive is named: set RELIGHT_ARCHIVE to a folder or s3://bucket/prefix")
    return open_store(place)


def _state(behind: int) -> str:
    return "sealing" if behind == 0 else "ended" if behind < 0 else "stated"
