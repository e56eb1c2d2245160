"""Whom an archive believes: whether a key is one of its own, and may seal what comes next."""

from relight.engine.archive.keys import SigningKey, signed_by
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.segment import Head
from relight.engine.errors import ArchiveError


def vouched(archive: ArchiveReader, key: str, document: bytes, signature: str) -> bool:
    """Whether this key of the archive signed these bytes."""
    public = archive._keys.get(key)
    return public is not None and signed_by(public, document, signature)


async def check_may_seal(archive: ArchiveReader, key: SigningKey, after: Head) -> None:
    """Raises `ArchiveError` where `key` may not seal the segment after that one."""
    if key.id not in archive._keys:
        raise ArchiveError(
            f"archive {archive.store.place}: key {key.id} may not seal segment {after.segment + 1}: it is none of its"
            " keys; give the one that is by RELIGHT_ARCHIVE_KEY"
        )
