"""One publisher's spool: an SQLite file in which every event lies, fsynced, until it is safe elsewhere."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from relight.engine.errors import SpoolUnusable
from relight.events.envelope import GENESIS

SCHEMA_VERSION = 1
MEMORY = Path(":memory:")
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE events (
    pseq INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    subject TEXT NOT NULL,
    body BLOB NOT NULL,
    sha256 TEXT NOT NULL,
    recorded_ms INTEGER NOT NULL
);
-- One row for each acknowledgement: it covers first_pseq..last_pseq, and last_seq is where the last of them stands.
-- Healing adds a row of its own with the next attempt, whose message id is `<id>#h<attempt>`.
CREATE TABLE acks (
    first_pseq INTEGER NOT NULL,
    heal_attempt INTEGER NOT NULL DEFAULT 0,
    last_pseq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    acked_ms INTEGER NOT NULL,
    PRIMARY KEY (first_pseq, heal_attempt)
) WITHOUT ROWID;
-- Control events belong to their subject's chain, not to this publisher's; a copy lies here for healing.
CREATE TABLE control_copies (
    subject TEXT NOT NULL,
    rev INTEGER NOT NULL,
    id TEXT NOT NULL,
    body BLOB NOT NULL,
    seq INTEGER NOT NULL,
    recorded_ms INTEGER NOT NULL,
    PRIMARY KEY (subject, rev, id)
) WITHOUT ROWID;
CREATE TABLE contents (
    tenant TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    body BLOB NOT NULL,
    recorded_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, sha256)
);
"""


class Spooled(NamedTuple):
    """An event as it is published: its number, message id, subject and exact bytes."""

    pseq: int
    id: str
    subject: str
    body: bytes
    sha256: str
    recorded_ms: int


class Acked(NamedTuple):
    """The stream acknowledged `first_pseq`..`last_pseq`, the last of them at `last_seq`."""

    first_pseq: int
    last_pseq: int
    last_seq: int
    acked_ms: int


class SpooledContent(NamedTuple):
    """Content on its way to the content store."""

    tenant: str
    sha256: str
    body: bytes
    recorded_ms: int


class ControlCopy(NamedTuple):
    """A control event that this process appended, as it stands on the stream at `seq`."""

    subject: str
    rev: int
    id: str
    body: bytes
    seq: int
    recorded_ms: int


@dataclass(frozen=True, slots=True)
class Exposure:
    """What is on this disk and not yet acknowledged by the stream; the bytes include content."""

    events: int
    bytes: int
    oldest_ms: int | None


class Spool:
    """The file of one identity. Opened by one process at a time; its methods are called from one thread at a time.

    Raises `SpoolUnusable` when the file is not ours, newer, or cannot be read or written.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self.durable = path != MEMORY
        with self._errors():
            self._db = _connect(path, read_only=read_only)
            if not read_only:
                self._prepare()
            version = int(self.meta("schema_version") or 0)
        if version > SCHEMA_VERSION:
            self.close()
            raise SpoolUnusable(
                f"spool {path} was written by a newer relight (schema {version}, this one reads {SCHEMA_VERSION}):"
                " upgrade, or set RELIGHT_HOME to another folder"
            )

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA fullfsync = ON")
        self._db.execute("PRAGMA checkpoint_fullfsync = ON")
        if self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
            version = f"INSERT INTO meta VALUES ('schema_version', '{SCHEMA_VERSION}');"
            self._db.executescript(f"BEGIN; {_SCHEMA} {version} COMMIT;")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise SpoolUnusable(
                f"spool {self.path}: {error}; check the disk, or set RELIGHT_HOME to another folder"
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

    def commit(
        self,
        events: Sequence[Spooled],
        contents: Sequence[SpooledContent] = (),
        acks: Sequence[Acked] = (),
        copies: Sequence[ControlCopy] = (),
    ) -> int:
        """Writes all of it in one transaction and one fsync; returns the bytes of contents that were there already."""
        repeated = 0
        with self._transaction():
            # First: of a spool in memory the drainer reads in the middle of this, and must see no event without it.
            for content in contents:
                if not self._db.execute("INSERT OR IGNORE INTO contents VALUES (?, ?, ?, ?)", content).rowcount:
                    repeated += len(content.body)
            self._db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", events)
            self._db.executemany("INSERT OR IGNORE INTO control_copies VALUES (?, ?, ?, ?, ?, ?)", copies)
            self._db.executemany(
                "INSERT OR REPLACE INTO acks (first_pseq, last_pseq, last_seq, acked_ms) VALUES (?, ?, ?, ?)", acks
            )
        return repeated

    def acked_pseq(self) -> int:
        """Every number up to it was acknowledged."""
        with self._errors():
            row = self._db.execute("SELECT max(last_pseq) FROM acks").fetchone()
        return int(row[0] or 0)

    def pending(self, after_pseq: int, limit: int, limit_bytes: int) -> list[Spooled]:
        """The lowest unacknowledged events, at most so many and (but for the first) so many bytes."""
        size, events = 0, list[Spooled]()
        with self._errors():
            rows = self._db.execute(
                "SELECT pseq, id, subject, body, sha256, recorded_ms FROM events WHERE pseq > ? ORDER BY pseq LIMIT ?",
                (after_pseq, limit),
            )
            for row in rows:
                size += len(row[3])
                if events and size > limit_bytes:
                    break
                events.append(Spooled(*row))
            rows.close()  # an open cursor would keep the WAL from being checkpointed
        return events

    def contents(self, limit_bytes: int) -> list[SpooledContent]:
        """Content that is not yet in the content store: one, and more up to so many bytes."""
        size, contents = 0, list[SpooledContent]()
        with self._errors():
            rows = self._db.execute("SELECT tenant, sha256, body, recorded_ms FROM contents")
            for row in rows:
                size += len(row[2])
                if contents and size > limit_bytes:
                    break
                contents.append(SpooledContent(*row))
            rows.close()
        return contents

    def content_stored(self, keys: Sequence[tuple[str, str]]) -> None:
        with self._transaction():
            self._db.executemany("DELETE FROM contents WHERE tenant = ? AND sha256 = ?", keys)

    def exposure(self) -> Exposure:
        with self._errors():
            count, size, oldest = self._db.execute(
                "SELECT count(*), coalesce(sum(length(body)), 0), min(recorded_ms) FROM events WHERE pseq > ?",
                (self.acked_pseq(),),
            ).fetchone()
            contents = self._db.execute("SELECT coalesce(sum(length(body)), 0) FROM contents").fetchone()[0]
        return Exposure(count, size + contents, oldest)

    def evict(self, *, up_to_pseq: int, acked_before_ms: int, limit: int) -> int:
        """Deletes events that are projected, acknowledged, and were so before that time; returns how many.

        `up_to_pseq` is the publisher's projected head. The last event always stays: the chain goes on from it.
        """
        with self._transaction():
            row = self._db.execute("SELECT max(last_pseq) FROM acks WHERE acked_ms < ?", (acked_before_ms,)).fetchone()
            highest = self._db.execute("SELECT max(pseq) FROM events").fetchone()[0]
            if row[0] is None or highest is None:
                return 0
            bound = min(row[0], up_to_pseq, highest - 1)
            deleted = self._db.execute(
                "DELETE FROM events WHERE pseq IN (SELECT pseq FROM events WHERE pseq <= ? ORDER BY pseq LIMIT ?)",
                (bound, limit),
            ).rowcount
            self._db.execute("DELETE FROM control_copies WHERE recorded_ms < ?", (acked_before_ms,))
            self._db.execute(
                "DELETE FROM acks WHERE last_pseq < (SELECT min(pseq) FROM events)"
                " AND last_pseq < (SELECT max(last_pseq) FROM acks)"
            )
        return deleted

    def reader(self) -> "Spool":
        """A second connection, so that reading does not wait for a commit's fsync; of a spool in memory, itself."""
        return Spool(self.path, read_only=True) if self.durable else self

    def close(self) -> None:
        self._db.close()


def _connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    if read_only:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10)
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
