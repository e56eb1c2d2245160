"""Which of several projectors is at work: the one whose session holds the lock; another waits for it to come free."""

from dataclasses import dataclass

from relight.engine.log.reader import Anchor
from relight.engine.tables.connecting import Connection
from relight.engine.tables.positions import PROJECTOR, Position

LOCK_CLASS = 0x7265_6C69
"""Upper half of the lock's key; the lower one is the table's oid: every schema of a database has a lock of its own."""


@dataclass(frozen=True, slots=True)
class Look:
    """`leads`: this session holds the lock from now on, until it ends. `position`: where the projection is."""

    leads: bool
    position: Position | None


async def try_to_lead(connection: Connection) -> Look:
    """Takes the lock if it is free; asked again and again by whoever stands by.

    A statement that waited for the lock would be told a little earlier, but it would hold a snapshot for all that time,
    and dead rows could not be vacuumed.
    """
    row = await connection.fetchrow(
        "SELECT pg_try_advisory_lock($1::bigint << 32 | 'projection_positions'::regclass::oid::bigint) AS leads,"
        " incarnation, seq, sha256 FROM (SELECT) AS one LEFT JOIN projection_positions ON projector = $2",
        LOCK_CLASS,
        PROJECTOR,
    )
    assert row is not None
    known = row["seq"] is not None
    return Look(row["leads"], Position(row["incarnation"], Anchor(row["seq"], row["sha256"])) if known else None)
