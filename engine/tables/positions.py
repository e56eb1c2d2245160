"""Where the projector is on the stream, and how it moves: by compare-and-set, so that of two one is fenced."""

from dataclasses import dataclass

from relight.engine.errors import Fenced
from relight.engine.log.reader import BEGINNING, Anchor
from relight.engine.tables.connecting import Connection
from relight.projections.catalog import projections

PROJECTOR = "relight"
"""One projector and one position for all projections."""
ANCHOR_LEVELS = range(8, 60, 4)


@dataclass(frozen=True, slots=True)
class Position:
    """`incarnation` counts the rewinds of the stream that were noticed, from 1."""

    incarnation: int
    anchor: Anchor

    @property
    def seq(self) -> int:
        return self.anchor.seq

    def __str__(self) -> str:
        return f"{self.incarnation}:{self.seq}:{self.anchor.sha256[:12] or '-'}"


async def load_position(connection: Connection) -> Position:
    """The current position; the first one ever is the stream's beginning."""
    status = await connection.execute(
        "INSERT INTO projection_positions VALUES ($1, 1, 0, '', now()) ON CONFLICT DO NOTHING", PROJECTOR
    )
    if status == "INSERT 0 1":  # nothing is folded yet: all of it will be by these
        versions = {projection.name: projection.version for projection in projections()}
        await connection.execute(
            "INSERT INTO projection_versions SELECT * FROM unnest($1::text[], $2::bigint[]) ON CONFLICT DO NOTHING",
            list(versions),
            list(versions.values()),
        )
    row = await connection.fetchrow(
        "SELECT incarnation, seq, sha256 FROM projection_positions WHERE projector = $1", PROJECTOR
    )
    assert row is not None
    return Position(row["incarnation"], Anchor(row["seq"], row["sha256"]))


async def move_position(
    connection: Connection, held: Position, to: Anchor, *, incarnation: int | None = None
) -> Position:
    """Moves from `held` to `to`, in the caller's transaction. Raises `Fenced` when it is not `held` any more."""
    moved = Position(incarnation or held.incarnation, to)
    status = await connection.execute(
        "UPDATE projection_positions SET incarnation = $4, seq = $5, sha256 = $6, moved_at = now()"
        " WHERE projector = $1 AND incarnation = $2 AND seq = $3",
        PROJECTOR,
        held.incarnation,
        held.seq,
        moved.incarnation,
        to.seq,
        to.sha256,
    )
    if status != "UPDATE 1":
        raise Fenced(f"another projector moved the position from {held}: this one steps back, nothing was written")
    await _drop_anchor(connection, held.seq, to)
    return moved


async def _drop_anchor(connection: Connection, before_seq: int, at: Anchor) -> None:
    """Keeps two anchors a level, at least 2^level apart: ever sparser, reaching ever further back.

    So of any stretch of 2^level sequences behind the position, that level's older anchor lies before it.
    """
    levels = [level for level in ANCHOR_LEVELS if before_seq >> level != at.seq >> level]
    if at.seq <= before_seq or not levels:
        return
    await connection.execute(
        "INSERT INTO projection_anchors SELECT projector, level, true, seq, sha256 FROM projection_anchors"
        " WHERE projector = $1 AND level = ANY($2) AND NOT older AND $3 - seq >= 1::bigint << level::int"
        " ON CONFLICT (projector, level, older) DO UPDATE SET seq = excluded.seq, sha256 = excluded.sha256",
        PROJECTOR,
        levels,
        at.seq,
    )
    await connection.execute(
        "INSERT INTO projection_anchors AS held SELECT $1, level, false, $3, $4 FROM unnest($2::bigint[]) AS level"
        " ON CONFLICT (projector, level, older) DO UPDATE SET seq = excluded.seq, sha256 = excluded.sha256"
        " WHERE excluded.seq - held.seq >= 1::bigint << held.level::int",
        PROJECTOR,
        levels,
        at.seq,
        at.sha256,
    )


async def load_anchors(connection: Connection) -> list[Anchor]:
    """All anchors, the latest first, and last the stream's beginning."""
    rows = await connection.fetch(
        "SELECT DISTINCT seq, sha256 FROM projection_anchors WHERE projector = $1 ORDER BY seq DESC", PROJECTOR
    )
    return [*(Anchor(row["seq"], row["sha256"]) for row in rows), BEGINNING]


async def rewind_position(connection: Connection, held: Position, to: Anchor) -> Position:
    """A new incarnation, from the anchor that still stands. Raises `Fenced`."""
    async with connection.transaction():
        moved = await move_position(connection, held, to, incarnation=held.incarnation + 1)
        await connection.execute("DELETE FROM projection_anchors WHERE projector = $1 AND seq > $2", PROJECTOR, to.seq)
    return moved


async def next_generation(connection: Connection) -> int:
    """Counts on, in the caller's transaction, where tables change otherwise than by moving the position.

    Whoever remembers an answer by its position (an ETag) is told so.
    """
    return int(
        await connection.fetchval(
            "UPDATE projection_positions SET generation = generation + 1 WHERE projector = $1 RETURNING generation",
            PROJECTOR,
        )
        or 1
    )
