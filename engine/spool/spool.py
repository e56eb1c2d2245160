"""One publisher's spool: an SQLite file in which every event lies, fsynced, until it is safe elsewhere."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from relight.engine.errors import SpoolFault, SpoolUnusable
from relight.engine.log.chain import body_sha256
from relight.engine.spool import eviction
from relight.engine.spool.addresses import address_of
from relight.engine.spool.forking import INSIDE_SQLITE
from relight.engine.spool.rows import Acked as Acked
from relight.engine.spool.rows import ControlCopy as ControlCopy
from relight.engine.spool.rows import Exposure as Exposure
from relight.engine.spool.rows import Spooled as Spooled
from relight.engine.spool.rows import SpooledContent as SpooledContent
from relight.engine.spool.schema import BUSY_MS, connect, fault_of, prepare, refuse_other
from relight.engine.spool.schema import MEMORY as MEMORY
from relight.engine.spool.schema import SCHEMA_VERSION as SCHEMA_VERSION
from relight.events.envelope import GENESIS

READ = "SELECT pseq, id, subject, body, sha256, recorded_ms FROM events"


class Spool:
    """The file of one identity. Opened by one process at a time; its methods are called from one thread at a time.

    `max_bytes`: the file does not grow beyond it and a margin. Raises `SpoolUnusable` when the file is not ours, newer,
    damaged, or cannot be read or written.
    """

    def __init__(self, path: Path, *, read_only: bool = False, max_bytes: int | None = None) -> None:
        self.path = path
        self.durable = path != MEMORY
        if read_only and path.exists() and path.stat().st_size == 0:
            raise self._damaged("it is empty")  # and SQLite would delete the write-ahead log beside it
        with self._errors():
            self._db = connect(path, read_only=read_only)
        try:
            with self._errors():
                if read_only:
                    tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_schema")}
                    refuse_other(self._db, path, tables)
                else:
                    prepare(self._db, path, max_bytes=max_bytes)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with INSIDE_SQLITE:
                yield
        except sqlite3.Error as error:
            raise SpoolUnusable(
                f"spool {self.path}: {error}; check the disk, or set RELIGHT_HOME to another folder",
                fault=fault_of(error),
            ) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk rolls back by itself
                    self._db.execute("ROLLBACK")
                raise

    def meta(self, name: str) -> str | None:
        with self._errors():
            row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, values: dict[str, str]) -> None:
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    def head(self) -> tuple[int, str]:
        """Highest number written and its SHA-256; (0, GENESIS) when there is none."""
        with self._errors():
            row = self._db.execute("SELECT pseq, sha256 FROM events ORDER BY pseq DESC LIMIT 1").fetchone()
        return (0, GENESIS) if row is None else (row[0], row[1])

    def sha256_at(self, pseq: int) -> str | None:
        """Of the event with that number; None where it is not here any more, or never was."""
        with self._errors():
            row = self._db.execute("SELECT body FROM events WHERE pseq = ?", (pseq,)).fetchone()
        return None if row is None else body_sha256(row[0])

    def readable(self, first_pseq: int, last_pseq: int) -> list[int]:
        """Which of these numbers lie here, as they were written."""
        with self._errors():
            rows = self._db.execute(
                "SELECT pseq, body, sha256 FROM events WHERE pseq BETWEEN ? AND ?", (first_pseq, last_pseq)
            )
            return [pseq for pseq, body, sha256 in rows if body_sha256(body) == sha256]

    def check(self) -> None:
        """Raises `SpoolUnusable` where SQLite finds damage, or the last event is not the one that was written."""
        with self._errors():
            found = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise self._damaged(f"SQLite finds it damaged ({found})")
        pseq, sha256 = self.head()
        if pseq and self.sha256_at(pseq) != sha256:
            raise self._damaged(f"event {pseq}, its last, is not as it was written")
        if (acked := self.acked_pseq()) > pseq:
            raise self._damaged(f"it says that {acked} events were acknowledged, and has no more than {pseq}")

    def commit(
        self,
        events: Sequence[Spooled],
        contents: Sequence[SpooledContent] = (),
        acks: Sequence[Acked] = (),
        copies: Sequence[ControlCopy] = (),
        *,
        before: Callable[[], None] = lambda: None,
    ) -> list[int]:
        """Writes all of it in one transaction and one fsync; returns the sizes of contents that were there already.

        `before` is called when all is ready to be committed; what it raises rolls everything back.
        """
        repeated: list[int] = []
        with self._transaction():
            # First: of a spool in memory the drainer reads in the middle of this, and must see no event without it.
            for content in contents:
                if not self._db.execute("INSERT OR IGNORE INTO contents VALUES (?, ?, ?, ?)", content).rowcount:
                    repeated.append(len(content.body))  # noqa: PERF401  # it writes
            self._db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", events)
            self._db.executemany("INSERT OR IGNORE INTO control_copies VALUES (?, ?, ?, ?, ?, ?)", copies)
            self._db.executemany(
                "INSERT OR REPLACE INTO acks (first_pseq, last_pseq, last_seq, acked_ms) VALUES (?, ?, ?, ?)", acks
            )
            before()
        return repeated

    def acked_pseq(self) -> int:
        """Every number up to it was acknowledged."""
        with self._errors():
            row = self._db.execute("SELECT max(last_pseq) FROM acks").fetchone()
        return int(row[0] or 0)

    def pending(self, after_pseq: int, limit: int, limit_bytes: int) -> list[Spooled]:
        """The lowest unacknowledged events, at most so many and (but for the first) so many bytes.

        Ends before an event whose bytes are not those that were written. Raises `SpoolUnusable` when that is the first.
        """
        size, events = 0, list[Spooled]()
        with self._errors():
            rows = self._db.execute(f"{READ} WHERE pseq > ? ORDER BY pseq LIMIT ?", (after_pseq, limit))
            for row in rows:
                size += len(row[3])
                if events and size > limit_bytes:
                    break
                event = Spooled(*row)
                if self.durable and not _is_as_written(event):
                    if not events:
                        raise self._damaged(f"event {event.pseq} is not as it was written")
                    break
                events.append(event)
            rows.close()  # an open cursor would keep the WAL from being checkpointed
        return events

    def ids_after(self, pseq: int, limit: int) -> list[str]:
        """Of the events that follow this number, in order; they have the numbers that follow it."""
        with self._errors():
            rows = self._db.execute("SELECT id FROM events WHERE pseq > ? ORDER BY pseq LIMIT ?", (pseq, limit))
            return [id for (id,) in rows]

    def last_ack(self) -> tuple[int, int]:
        """The last number that was acknowledged, and where it stands on the stream; 0 where there is none."""
        with self._errors():
            asked = "SELECT last_pseq, last_seq FROM acks WHERE heal_attempt = 0 ORDER BY first_pseq DESC LIMIT 1"
            row = self._db.execute(asked).fetchone()
        return (0, 0) if row is None else (int(row[0]), int(row[1]))

    def contents(self, limit_bytes: int) -> list[SpooledContent]:
        """Content that is not yet in the content store: one, and more up to so many bytes."""
        size, contents = 0, list[SpooledContent]()
        with self._errors():
            rows = self._db.execute("SELECT tenant, sha256, body, recorded_ms FROM contents")
            for row in rows:
                size += len(row[2])
                if contents and size > limit_bytes:
                    break
                if self.durable and body_sha256(row[2]) != row[1]:
                    raise self._damaged(f"content {row[1]} is not as it was written")
                contents.append(SpooledContent(*row))
            rows.close()
        return contents

    def content_stored(self, keys: Sequence[tuple[str, str]]) -> None:
        with self._transaction():
            self._db.executemany("DELETE FROM contents WHERE tenant = ? AND sha256 = ?", keys)

    def exposure(self) -> Exposure:
        with self._errors():
            count, size, oldest, newest = self._db.execute(
                "SELECT count(*), coalesce(sum(length(body)), 0), min(recorded_ms), max(recorded_ms) FROM events"
                " WHERE pseq > ?",
                (self.acked_pseq(),),
            ).fetchone()
            contents = self._db.execute("SELECT coalesce(sum(length(body)), 0) FROM contents").fetchone()[0]
        return Exposure(count, size + contents, oldest, newest)

    def exposed_sizes(self) -> dict[int, int]:
        """Of the bodies that are exposed: how many there are of which size."""
        sizes = Counter[int]()
        with self._errors():
            for table in ("events WHERE pseq > ?", "contents WHERE ? >= 0"):
                asked = f"SELECT length(body), count(*) FROM {table} GROUP BY 1"
                sizes.update(dict(self._db.execute(asked, (self.acked_pseq(),)).fetchall()))
        return sizes

    def evict(
        self,
        *,
        up_to_pseq: int,
        acked_before_ms: int,
        limit: int,
        copies_before_ms: int | None = None,
        copies_up_to_seq: int | None = None,
    ) -> int:
        """Deletes what is safe elsewhere, as `eviction.evict` says; returns how many events."""
        with self._transaction():
            return eviction.evict(
                self._db,
                up_to_pseq=up_to_pseq,
                acked_before_ms=acked_before_ms,
                limit=limit,
                copies_before_ms=acked_before_ms if copies_before_ms is None else copies_before_ms,
                copies_up_to_seq=copies_up_to_seq,
            )

    def make_room(self, need_bytes: int, *, max_bytes: int, safe_pseq: int) -> int:
        """So that so many bytes more fit below the cap, if acknowledged rows can give them; how many went unsafely."""
        with self._errors():
            missing = self.used_bytes() + need_bytes - max_bytes
        if missing <= 0:
            return 0
        with self._transaction():
            return eviction.make_room(self._db, missing + max_bytes // 16, safe_pseq=safe_pseq)

    def used_bytes(self) -> int:
        """Of the file, but for its free pages."""
        with self._errors():
            (pages,), (free,), (size,) = (
                self._db.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size")
            )
        return int((pages - free) * size)

    def wal_bytes(self) -> int:
        """Of the file beside it, which SQLite writes first."""
        try:
            return self.path.with_name(f"{self.path.name}-wal").stat().st_size
        except OSError:
            return 0

    def cut_wal(self) -> None:
        """Writes the WAL into the file and cuts it off, unless somebody reads it: then it stays for now."""
        with self._errors():
            self._db.execute("PRAGMA busy_timeout = 0")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")

    def barrier(self) -> bool:
        """Whether nobody is in the middle of a transaction: what was begun before is written, or never will be."""
        with self._errors():
            try:
                self._db.execute("PRAGMA busy_timeout = 0")
                self._db.execute("BEGIN IMMEDIATE")
                self._db.execute("ROLLBACK")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_ERROR):
                    return False
                raise
            finally:
                self._db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        return True

    def copy_to(self, path: Path) -> None:
        """All of it into a file that does not exist yet."""
        target = Spool(path)
        try:
            with self._errors():
                self._db.backup(target._db)
                target._db.execute("PRAGMA journal_mode = WAL")
        finally:
            target.close()

    def reader(self) -> "Spool":
        """A second connection, so that reading does not wait for a commit's fsync; of a spool in memory, itself."""
        return Spool(self.path, read_only=True) if self.durable else self

    def close(self) -> None:
        with INSIDE_SQLITE:
            self._db.close()

    def _damaged(self, what: str) -> SpoolUnusable:
        return SpoolUnusable(f"spool {self.path}: {what}", fault=SpoolFault.CORRUPT)


def _is_as_written(event: Spooled) -> bool:
    return body_sha256(event.body) == event.sha256 and address_of(event.body) in (None, (event.id, event.subject))
