"""Which contents the messages of an archive or a stream refer to and have erased, against those that are there."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from relight.engine.archive.contents import Reference, references
from relight.engine.archive.models import CONTENTS
from relight.engine.archive.store import ArchiveStore
from relight.engine.log.reader import Message
from relight.events.catalog import decode
from relight.events.errors import Undecodable
from relight.events.recorder import RecorderErased


@dataclass(slots=True)
class SeenContents:
    """`referred`: what events refer to; `erased`: what was erased on demand, and by which erasure first."""

    referred: set[Reference] = field(default_factory=set)
    erased: dict[Reference, str] = field(default_factory=dict)

    def see(self, messages: Iterable[Message]) -> None:
        """In any order, and any number of times."""
        for message in messages:
            self.referred |= references(message)
            if (said := erasure_in(message)) is not None:
                for sha256 in said.contents:
                    self.erased.setdefault(Reference(said.of_tenant, sha256), said.erasure)


def erasure_in(message: Message) -> RecorderErased | None:
    """What it says was erased, if it is an event that says so."""
    if RecorderErased.TYPE.encode() not in message.body:
        return None
    try:
        data = decode(message.body).data
    except Undecodable:
        return None
    return data if isinstance(data, RecorderErased) else None


async def missing_contents(store: ArchiveStore, seen: SeenContents) -> list[Reference]:
    """What events refer to and the archive lacks, although no erasure on record explains it; in order.

    It was lost, or its recorder refused it for want of space.
    """
    names = set(await store.names(CONTENTS))
    return sorted(one for one in seen.referred if one not in seen.erased and one.name not in names)


async def unerased_contents(store: ArchiveStore, seen: SeenContents) -> list[Reference]:
    """What an erasure on record names and the archive still holds; in order. Erasing again takes it away."""
    names = set(await store.names(CONTENTS))
    return sorted(one for one in seen.erased if one.name in names)
