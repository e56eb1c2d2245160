"""Erases what a demand means from content store, archives and spools; made again, it completes what was cut short."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nats.aio.client import Client
from pydantic import BaseModel, ConfigDict

from relight.engine.archive.at_once import at_once
from relight.engine.archive.content_restoring import reference_of
from relight.engine.archive.contents import Reference
from relight.engine.archive.models import CONTENTS
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.salvage import salvage_archive
from relight.engine.archive.store import ArchiveStore
from relight.engine.erasure.demand import Demand
from relight.engine.erasure.matching import Matching, Uses
from relight.engine.erasure.spools import forget, spooled_contents
from relight.engine.errors import Unreachable
from relight.engine.log.content_store import ContentStore
from relight.engine.log.events import read_messages
from relight.engine.log.regional_contents import erase_regional, regional_names
from relight.engine.log.topology import REQUEST_TIMEOUT_S
from relight.events.recorder import RecorderErased
from relight.events.subjects import token

AT_ONCE = 16
PART = 1_000
"""Contents in one event."""

Advanced = Callable[[str, int, int | None], None]
"""Told of the stage ("stream", "archives", "contents"), how much of it is done, and of how much, if that is known."""


class Erasable(BaseModel):
    """A content that a demand means: how many of its events refer to it, and how many others of the tenant."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    events: int
    other_events: int
    size_bytes: int
    stored: bool
    archives: int


class Found(BaseModel):
    """What a demand comes to. `damaged_segments` of archives: what else they refer to is not known."""

    model_config = ConfigDict(frozen=True)

    erasure: str
    scope: str
    contents: tuple[Erasable, ...]
    damaged_segments: int

    @property
    def size_bytes(self) -> int:
        return sum(content.size_bytes for content in self.contents)


class Erased(BaseModel):
    """What was deleted where, and how many contents are on record as erased by it now.

    `regional`: copies in the regions' own buckets.
    """

    model_config = ConfigDict(frozen=True)

    stored_bytes: int
    regional: int = 0
    archived: int
    spooled: int
    spools_held: int
    unreadable_spools: tuple[str, ...]
    recorded: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where contents are; `spools`: a folder of them, if there is one."""

    client: Client
    archives: Sequence[ArchiveStore]
    spools: Path | None


class Erasing:
    """`find` first, then `erase`."""

    def __init__(self, demand: Demand, places: Places, advanced: Advanced) -> None:
        self._demand = demand
        self._places = places
        self._advanced = advanced
        self._contents = ContentStore(places.client)
        self._js = places.client.jetstream(timeout=REQUEST_TIMEOUT_S)
        self._matching = Matching(demand)
        self._digests: list[str] = []
        self._archived: list[set[str]] = []
        """Digests that each archive holds."""

    async def find(self) -> Found:
        """Reads stream and archives through. Raises `Unreachable`, `ArchiveDamaged`, `ArchiveUnreachable`."""
        async for messages, total in read_messages(self._places.client):
            self._matching.see(messages)
            self._advanced("stream", messages[-1].seq, total)
        damaged_segments = 0
        for number, store in enumerate(self._places.archives):
            async for salvaged in salvage_archive(await ArchiveReader.open_damaged(store)):
                self._matching.see(salvaged.messages)
                damaged_segments += not salvaged.sound
            self._advanced("archives", number + 1, len(self._places.archives))
        uses = self._matching.uses()
        wanted = {sha256 for sha256, use in uses.items() if use.matching} | set(self._demand.contents)
        archived = self._archived = [await self._names(store) for store in self._places.archives]
        if self._demand.is_everything:
            wanted |= {*await self._contents.reader.names(self._demand.tenant), *set().union(*archived)}
            wanted |= await regional_names(self._js, self._demand.tenant)
            if self._places.spools is not None:
                wanted |= await asyncio.to_thread(spooled_contents, self._places.spools, self._demand.tenant)
        self._digests = sorted(wanted)
        held = await at_once(
            AT_ONCE, self._digests, lambda sha256: self._contents.reader.look_up(self._demand.tenant, sha256)
        )
        return Found(
            erasure=self._demand.erasure,
            scope=self._demand.scope,
            contents=tuple(
                Erasable(
                    sha256=sha256,
                    events=uses.get(sha256, Uses()).matching,
                    other_events=uses.get(sha256, Uses()).others,
                    size_bytes=there.size_bytes if there else 0,
                    stored=there is not None and not there.erased,
                    archives=sum(sha256 in names for names in archived),
                )
                for sha256, there in zip(self._digests, held, strict=True)
            ),
            damaged_segments=damaged_segments,
        )

    async def erase(self, record: Callable[[Sequence[RecorderErased]], object]) -> Erased:
        """The record comes last: it must not say of anything that is still there that it was erased. Whoever asks in
        between is told so by the store's mark, and when this is cut short, the same demand goes on.

        Raises `Unreachable` where a region is away that may hold copies of its own: all else was erased then.
        """
        done = stored_bytes = archived = 0

        async def erase_one(sha256: str) -> None:
            nonlocal done, stored_bytes, archived
            # In this order: an archiver that copies it now looks at the store again after it did.
            erased_bytes = await self._contents.erase(self._demand.tenant, sha256, self._demand.erasure)
            name = Reference(self._demand.tenant, sha256).name
            for store, digests in zip(self._places.archives, self._archived, strict=True):
                archived += sha256 in digests
                await store.delete(name)
            done, stored_bytes = done + 1, stored_bytes + erased_bytes
            self._advanced("contents", done, len(self._digests))

        await at_once(AT_ONCE, self._digests, erase_one)
        spools = self._places.spools
        forgot = await asyncio.to_thread(forget, spools, self._demand.tenant, self._digests) if spools else None
        demand = self._demand
        regional = await erase_regional(
            self._places.client, self._js, [(demand.tenant, sha256, demand.erasure) for sha256 in self._digests]
        )
        if regional.away:
            raise Unreachable(
                f"erasure {demand.erasure} is not complete: region {', '.join(regional.away)} is away, whose own bucket"
                " may hold copies; all else was erased, nothing is on record yet: run the same command when it is back"
            )
        new = [sha256 for sha256 in self._digests if sha256 not in self._matching.recorded]
        record([self._event(new[first : first + PART]) for first in range(0, len(new), PART)])
        return Erased(
            stored_bytes=stored_bytes + regional.bytes,
            regional=regional.copies,
            archived=archived,
            spooled=forgot.deleted if forgot else 0,
            spools_held=forgot.held_by_others if forgot else 0,
            unreadable_spools=forgot.unreadable if forgot else (),
            recorded=len(self._digests),
        )

    async def _names(self, store: ArchiveStore) -> set[str]:
        """SHA-256 of the tenant's contents there."""
        names = await store.names(f"{CONTENTS}{token(self._demand.tenant)}/")
        return {reference.sha256 for name in names if (reference := reference_of(name)) is not None}

    def _event(self, contents: Sequence[str]) -> RecorderErased:
        demand = self._demand
        return RecorderErased(
            erasure=demand.erasure,
            of_tenant=demand.tenant,
            scope=demand.scope,
            contents=tuple(contents),
            decided_by=demand.decided_by,
            reason=demand.reason,
        )
