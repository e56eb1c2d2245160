"""Checks what stands beside an archive's segments: contents, and what witnesses say."""

from collections.abc import Callable
from hashlib import sha256

from relight.engine.archive.models import CONTENTS, WITNESSES, WitnessStatement
from relight.engine.archive.reading import ArchiveReader, decompressed
from relight.engine.archive.store import ArchiveStore
from relight.engine.archive.witnesses import read_statement
from relight.engine.audit.models import Finding, Kind
from relight.engine.errors import ArchiveDamaged

Told = Callable[[Finding], None]


async def check_contents(store: ArchiveStore, told: Told) -> int:
    """How many there are; each is named for the SHA-256 that it has to have."""
    contents = 0
    async for name in store.each(CONTENTS):
        contents += 1
        try:
            found = sha256(decompressed(await store.read(name))).hexdigest()
        except ArchiveDamaged as error:
            told(_damaged(f"{name}: {error}"))
            continue
        if found != name.rpartition("/")[2].removesuffix(".zst"):
            told(_damaged(f"{name} holds other content than it is named for"))
    return contents


async def check_witnesses(reader: ArchiveReader, told: Told) -> list[WitnessStatement]:
    """What is rightly signed; whether it holds is for the walk to tell."""
    found = []
    for name in await reader.store.names(WITNESSES):
        try:
            found.append(read_statement(await reader.store.read(name), name=name, archive=reader.root.archive))
        except ArchiveDamaged as error:
            told(_damaged(f"{name}: {error}"))
    return found


def _damaged(detail: str) -> Finding:
    return Finding(kind=Kind.DAMAGED, where="archive", detail=detail)
