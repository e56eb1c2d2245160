"""Which rows leave a spool: what is safe elsewhere, and for want of room what the stream has acknowledged."""

import sqlite3

from relight.engine.spool.rows import ROW_BYTES


def evict(
    db: sqlite3.Connection,
    *,
    up_to_pseq: int,
    acked_before_ms: int,
    limit: int,
    copies_before_ms: int,
    copies_up_to_seq: int | None,
) -> int:
    """Deletes events up to that number that were acknowledged before that time; in the caller's transaction.

    `up_to_pseq` is what is sealed, or without an archive the publisher's projected head. Copies of control events go
    by age, and with an archive no further than it has come. The last event always stays: the chain goes on from it.
    """
    row = db.execute("SELECT max(last_pseq) FROM acks WHERE acked_ms < ?", (acked_before_ms,)).fetchone()
    deleted = 0
    if row[0] is not None:
        bound = min(row[0], up_to_pseq, _highest(db) - 1)
        deleted = db.execute(
            "DELETE FROM events WHERE pseq IN (SELECT pseq FROM events WHERE pseq <= ? ORDER BY pseq LIMIT ?)",
            (bound, limit),
        ).rowcount
    db.execute(
        "DELETE FROM control_copies WHERE recorded_ms < ? AND seq <= coalesce(?, seq)",
        (copies_before_ms, copies_up_to_seq),
    )
    _forget_acks(db)
    return deleted


def make_room(db: sqlite3.Connection, need_bytes: int, *, safe_pseq: int) -> int:
    """Deletes acknowledged events, the oldest first, and then copies of control events, until so much is free.

    In the caller's transaction. Returns how many went that were not safe elsewhere: events above `safe_pseq`, and
    copies. The lowest numbers are sealed first, so that those go before others.
    """
    acked = db.execute("SELECT max(last_pseq) FROM acks").fetchone()[0] or 0
    freed, last, unsafe = 0, 0, 0
    rows = db.execute(
        "SELECT pseq, length(body) FROM events WHERE pseq <= ? ORDER BY pseq", (min(acked, _highest(db) - 1),)
    )
    for pseq, size in rows:
        if freed >= need_bytes:
            break
        freed, last = freed + size + ROW_BYTES, pseq
        unsafe += pseq > safe_pseq
    rows.close()
    db.execute("DELETE FROM events WHERE pseq <= ?", (last,))
    copies = db.execute("SELECT subject, rev, id, length(body) FROM control_copies ORDER BY recorded_ms")
    gone = []
    for subject, rev, id_, size in copies:
        if freed >= need_bytes:
            break
        freed += size + ROW_BYTES
        gone.append((subject, rev, id_))
    copies.close()
    db.executemany("DELETE FROM control_copies WHERE subject = ? AND rev = ? AND id = ?", gone)
    _forget_acks(db)
    return unsafe + len(gone)


def _highest(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT max(pseq) FROM events").fetchone()[0] or 0)


def _forget_acks(db: sqlite3.Connection) -> None:
    """Of events that are gone; the last one stays, for it says how far all is acknowledged."""
    db.execute(
        "DELETE FROM acks WHERE last_pseq < (SELECT min(pseq) FROM events)"
        " AND last_pseq < (SELECT max(last_pseq) FROM acks)"
    )
