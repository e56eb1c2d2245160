"""Walks an archive's manifests from the first to the last, whatever is wrong with some of them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha256

from relight.engine.archive.models import Manifest, manifest_name
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.segment import Head, read_manifest, signed_part
from relight.engine.errors import ArchiveDamaged


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A segment, or a run of numbers up to `last` that none has.

    `manifest`: as far as it can be read. `sha256`: of its document, whether it can be read or not. `vouched`: it is
    signed by the key that speaks for it. `faults`: what is wrong with it.
    """

    segment: int
    last: int
    manifest: Manifest | None = None
    sha256: str | None = None
    vouched: bool = False
    faults: tuple[str, ...] = ()

    @property
    def is_there(self) -> bool:
        return self.sha256 is not None


async def walk_manifests(reader: ArchiveReader) -> AsyncIterator[Step]:
    """Every segment in order."""
    head: Head | None = Head(archive=reader.root.archive)
    before = 0
    for segment in await reader.segments():
        if segment > before + 1:
            names = f"{manifest_name(before + 1)} to {segment - 1}"
            yield Step(segment=before + 1, last=segment - 1, faults=(f"{names}: not there",))
            head = None
        before = segment
        body = await reader.store.read(manifest_name(segment))
        digest = sha256(body.partition(b"\n")[0]).hexdigest()
        try:
            manifest, head = await reader.manifest(segment, head)
            yield Step(segment=segment, last=segment, manifest=manifest, sha256=digest, vouched=True)
        except ArchiveDamaged as error:
            head = None
            yield Step(segment=segment, last=segment, manifest=_readable(body), sha256=digest, faults=(str(error),))


def _readable(body: bytes) -> Manifest | None:
    try:
        return read_manifest(signed_part(body)[0])
    except ArchiveDamaged:
        return None
