"""What the tables know of the recording: heads, gaps, declared losses, heals, trims, archives."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from relight.engine.log.numbers import Ranges, merged
from relight.engine.log.reader import BEGINNING, Anchor
from relight.engine.tables.connecting import Connection
from relight.engine.tables.positions import PROJECTOR, load_anchors


@dataclass(frozen=True, slots=True)
class TablesHead:
    """The highest number of a publisher that the tables have folded, and its hash."""

    pseq: int
    sha256: str
    session: str
    heard_at: datetime


@dataclass(frozen=True, slots=True)
class SealedHead:
    """Up to here an archive holds a publisher's unbroken chain."""

    archive: str
    pseq: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ArchiveHead:
    """The last segment that an archiver told of."""

    archive: str
    place: str
    segment: int
    manifest_sha256: str


@dataclass(frozen=True, slots=True)
class Loss:
    """Numbers that somebody declared lost."""

    publisher: str
    first_pseq: int
    last_pseq: int
    decided_by: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What may be absent from the stream: what was declared lost, and up to `trimmed_seq` what is sealed."""

    losses: Sequence[Loss] = ()
    sealed: Sequence[tuple[str, SealedHead]] = ()
    trimmed_seq: int = 0

    @property
    def lost(self) -> dict[str, Ranges]:
        return _merged((loss.publisher, loss.first_pseq, loss.last_pseq) for loss in self.losses)

    @property
    def sealed_numbers(self) -> dict[str, Ranges]:
        return _merged((publisher, 1, head.pseq) for publisher, head in self.sealed)


@dataclass(frozen=True, slots=True, kw_only=True)
class TablesKnow:
    """As of one moment; `anchors` are earlier positions, and what stood on the stream there."""

    position: Anchor = BEGINNING
    anchors: Sequence[Anchor] = ()
    heads: Mapping[str, TablesHead] = field(default_factory=dict)
    gaps: Mapping[str, Ranges] = field(default_factory=dict)
    heals: Mapping[str, Ranges] = field(default_factory=dict)
    sealed: Sequence[tuple[str, SealedHead]] = ()


async def read_tables(session: Connection) -> TablesKnow:
    """In a transaction of its own."""
    async with session.transaction(isolation="repeatable_read", readonly=True):
        position = await session.fetchrow(
            "SELECT seq, sha256 FROM projection_positions WHERE projector = $1", PROJECTOR
        )
        heads = {
            row["publisher"]: TablesHead(row["highest_pseq"], row["highest_sha256"], row["session"], row["heard_at"])
            async for row in session.cursor(
                "SELECT publisher, highest_pseq, highest_sha256, session, greatest(seen_at, heard_at) AS heard_at"
                " FROM publisher_heads",
                prefetch=5_000,
            )
        }
        return TablesKnow(
            position=Anchor(position["seq"], position["sha256"]) if position is not None else BEGINNING,
            anchors=await load_anchors(session),
            heads=heads,
            gaps=_merged(await session.fetch("SELECT publisher, first_pseq, last_pseq FROM publisher_gaps")),
            heals=_merged(await session.fetch("SELECT publisher, first_pseq, last_pseq FROM recorded_heals")),
            sealed=await read_sealed(session),
        )


async def read_allowed(session: Connection) -> Allowed:
    """After the stream was walked: a trim is recorded before it is made."""
    async with session.transaction(isolation="repeatable_read", readonly=True):
        losses = await session.fetch(
            "SELECT publisher, first_pseq, last_pseq, decided_by, reason FROM recorded_losses"
            " ORDER BY publisher, first_pseq"
        )
        trimmed_seq = await session.fetchval("SELECT coalesce(max(through_seq), 0) FROM stream_trims")
        sealed = await read_sealed(session)
    return Allowed(losses=[Loss(*row.values()) for row in losses], sealed=sealed, trimmed_seq=trimmed_seq)


async def read_archives(session: Connection) -> list[ArchiveHead]:
    """Before the archive is read: it may have grown since, but never shrunk."""
    return [
        ArchiveHead(*row.values())
        for row in await session.fetch("SELECT archive, place, segment, manifest_sha256 FROM archives")
    ]


async def read_sealed(session: Connection) -> list[tuple[str, SealedHead]]:
    """By publisher, of every archive."""
    rows = await session.fetch("SELECT publisher, archive, pseq, sha256 FROM sealed_heads")
    return [(row["publisher"], SealedHead(row["archive"], row["pseq"], row["sha256"])) for row in rows]


def _merged(rows: Iterable[Iterable[Any]]) -> dict[str, Ranges]:
    found: dict[str, Ranges] = {}
    for publisher, first, last in rows:
        found.setdefault(publisher, []).append((first, last))
    return {publisher: merged(ranges) for publisher, ranges in found.items()}
