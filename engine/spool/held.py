"""What a spool still holds of what the stream has acknowledged, where that stands, and where it was put back to."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from relight.engine.log.numbers import Numbers
from relight.engine.spool.spool import ControlCopy, Spool, Spooled


class PutBack(NamedTuple):
    """The stream had lost `first_pseq`..`last_pseq` and took them again under `<id>#h<attempt>`, the last at
    `last_seq`."""

    first_pseq: int
    last_pseq: int
    last_seq: int
    attempt: int
    acked_ms: int


class Held:
    """Of one spool, through its own connection and in its transactions; reads unless said otherwise.

    Raises `SpoolUnusable`.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def events(self, first_pseq: int, last_pseq: int, limit: int, limit_bytes: int) -> list[Spooled]:
        """Those of these numbers that are here and were acknowledged, from the lowest on, bounded as `pending` is."""
        last_pseq = min(last_pseq, self._spool.acked_pseq())
        if last_pseq < first_pseq:
            return []
        events = self._spool.pending(first_pseq - 1, min(limit, last_pseq - first_pseq + 1), limit_bytes)
        return [event for event in events if event.pseq <= last_pseq]

    def batches(self, lost: Numbers, limit: int, limit_bytes: int) -> Iterator[list[Spooled]]:
        """Those of these numbers that are here and were acknowledged, ascending, so many at once or a few more."""
        batch = list[Spooled]()
        for first, last in lost:
            while events := self.events(first, last, limit, limit_bytes):
                batch += events
                first = events[-1].pseq + 1
                if len(batch) >= limit or sum(len(event.body) for event in batch) >= limit_bytes:
                    yield batch
                    batch = []
        if batch:
            yield batch

    def places(self, pseqs: Sequence[int]) -> dict[int, int]:
        """By number, ascending: where the stream said last that it put the event.

        Of an acknowledged batch only the last one's sequence is kept: the others' are those before it, since a batch
        is stored in one piece. Whoever reads there sees whether that holds.
        """
        rows = self._rows(
            "SELECT first_pseq, last_pseq, last_seq FROM acks WHERE last_pseq >= ? AND first_pseq <= ?"
            " ORDER BY acked_ms, heal_attempt",
            (pseqs[0], pseqs[-1]),
        )
        found = {}
        for first, last, last_seq in rows:
            for pseq in pseqs[bisect_left(pseqs, first) : bisect_right(pseqs, last)]:
                found[pseq] = last_seq - (last - pseq)
        return found

    def tails(self) -> list[int]:
        """The last number of every acknowledgement, in order."""
        return [row[0] for row in self._rows("SELECT DISTINCT last_pseq FROM acks ORDER BY last_pseq", ())]

    def copies(self, subject: str, first_rev: int, last_rev: int) -> list[ControlCopy]:
        """Of this subject's revisions those that this process appended, in order."""
        rows = self._rows(
            "SELECT subject, rev, id, body, seq, recorded_ms FROM control_copies"
            " WHERE subject = ? AND rev BETWEEN ? AND ? ORDER BY rev, id",
            (subject, first_rev, last_rev),
        )
        return [ControlCopy(*row) for row in rows]

    def newest_copy(self) -> ControlCopy | None:
        """The one that was appended last."""
        rows = self._rows(
            "SELECT subject, rev, id, body, seq, recorded_ms FROM control_copies"
            " ORDER BY recorded_ms DESC, rev DESC LIMIT 1",
            (),
        )
        return ControlCopy(*rows[0]) if rows else None

    def subjects(self) -> list[str]:
        """Those that this process has ruled on."""
        return [row[0] for row in self._rows("SELECT DISTINCT subject FROM control_copies ORDER BY subject", ())]

    def note_events(self, put_back: Sequence[PutBack]) -> None:
        """Writes where lost events stand now."""
        with self._spool._transaction():
            self._spool._db.executemany(
                "INSERT OR REPLACE INTO acks (first_pseq, last_pseq, last_seq, heal_attempt, acked_ms)"
                " VALUES (?, ?, ?, ?, ?)",
                put_back,
            )

    def note_copies(self, put_back: Sequence[ControlCopy]) -> None:
        """Writes where lost rulings stand now: their `seq`."""
        with self._spool._transaction():
            self._spool._db.executemany(
                "UPDATE control_copies SET seq = ? WHERE subject = ? AND rev = ? AND id = ?",
                [(copy.seq, copy.subject, copy.rev, copy.id) for copy in put_back],
            )

    def _rows(self, sql: str, arguments: tuple[object, ...]) -> list[tuple]:  # type: ignore[type-arg]  # by its columns
        with self._spool._errors():
            return self._spool._db.execute(sql, arguments).fetchall()
