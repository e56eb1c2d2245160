"""Brings contents back from an archive into the object store, but for those that were erased."""

from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict

from relight.engine.archive.at_once import at_once
from relight.engine.archive.contents import Reference, read_archived
from relight.engine.archive.models import CONTENTS
from relight.engine.archive.store import ArchiveStore
from relight.engine.log.content_store import ContentStore

GROUP = 256
"""Looked up together; read and stored in parts of `AT_ONCE`."""
AT_ONCE = 16
SUFFIX = ".zst"


class RestoredContents(BaseModel):
    """How many were put back, stood there already, are kept away since they were erased, or cannot be read."""

    model_config = ConfigDict(frozen=True)

    restored: int = 0
    already: int = 0
    erased: int = 0
    damaged: tuple[str, ...] = ()


class _Body(NamedTuple):
    tenant: str
    sha256: str
    body: bytes


async def restore_contents(
    store: ArchiveStore, contents: ContentStore, erased: Mapping[Reference, str], advanced: Callable[[int, int], None]
) -> RestoredContents:
    """All that the archive holds and the object store does not. What was erased is marked there before, so that no
    spool brings it back either. Raises `ArchiveUnreachable`, and NATS' errors."""
    await at_once(AT_ONCE, erased.items(), lambda item: contents.erase(*item[0], item[1]))
    names = await store.names(CONTENTS)
    restored = 0
    already = 0
    damaged: list[str] = []
    for first in range(0, len(names), GROUP):
        found = {name: reference_of(name) for name in names[first : first + GROUP]}
        wanted = [reference for reference in found.values() if reference is not None and reference not in erased]
        damaged += [name for name, reference in found.items() if reference is None]
        there = await contents.known(wanted)
        already += len(there)
        new = [reference for reference in wanted if reference not in there]
        for start in range(0, len(new), AT_ONCE):
            part = new[start : start + AT_ONCE]
            bodies = await at_once(AT_ONCE, part, lambda reference: read_archived(store, reference))
            pairs = list(zip(part, bodies, strict=True))
            restored += await contents.put([_Body(*reference, body) for reference, body in pairs if body is not None])
            damaged += [reference.name for reference, body in pairs if body is None]
        advanced(min(first + GROUP, len(names)), len(names))
    return RestoredContents(restored=restored, already=already, erased=len(erased), damaged=tuple(damaged))


async def damaged_contents(store: ArchiveStore, advanced: Callable[[int, int], None]) -> list[str]:
    """The names of those that are not what they say. Reads all of them. Raises `ArchiveUnreachable`."""
    names = await store.names(CONTENTS)
    damaged = []
    for first in range(0, len(names), GROUP):
        part = names[first : first + GROUP]
        damaged += await at_once(AT_ONCE, part, lambda name: _damaged(store, name))
        advanced(min(first + GROUP, len(names)), len(names))
    return [name for name in damaged if name is not None]


async def _damaged(store: ArchiveStore, name: str) -> str | None:
    reference = reference_of(name)
    return name if reference is None or await read_archived(store, reference) is None else None


def reference_of(name: str) -> Reference | None:
    """Whose content a file of an archive is; None where it is named otherwise than contents are."""
    tenant_token, slash, file = name.removeprefix(CONTENTS).partition("/")
    reference = Reference(unquote(tenant_token), file.removesuffix(SUFFIX))
    return reference if slash and reference.name == name else None
