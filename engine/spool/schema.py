"""How a spool's file is laid out, and what SQLite is told about it."""

import sqlite3
from pathlib import Path

from relight.engine.errors import SpoolFault, SpoolUnusable
from relight.engine.spool.rows import PAGE_BYTES

SCHEMA_VERSION = 1
MEMORY = Path(":memory:")
CHECKPOINT_PAGES = 1_000
WAL_KEPT_BYTES = CHECKPOINT_PAGES * PAGE_BYTES
"""What the WAL is cut back to after a checkpoint."""
BUSY_MS = 10_000
"""How long a lock of another connection is waited for."""
MARGIN_BYTES = 16 << 20
"""What file and WAL together may take beyond the cap: a large group, and what pages leave empty."""
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


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Autocommit: transactions are begun by whoever writes."""
    if read_only:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1_000)
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1_000)


def prepare(db: sqlite3.Connection, path: Path, *, max_bytes: int | None) -> None:
    """Makes the tables where there are none; of a file that is not ours, or newer, nothing is changed.

    Raises `SpoolUnusable`, `sqlite3.Error`.
    """
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if tables:
        refuse_other(db, path, tables)
    if max_bytes is not None:
        db.execute(f"PRAGMA max_page_count = {(max_bytes + MARGIN_BYTES) // PAGE_BYTES}")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA fullfsync = ON")
    db.execute("PRAGMA checkpoint_fullfsync = ON")
    db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    db.execute(f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")
    if not tables:
        version = f"INSERT INTO meta VALUES ('schema_version', '{SCHEMA_VERSION}');"
        db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} {version} COMMIT;")


def refuse_other(db: sqlite3.Connection, path: Path, tables: set[str]) -> None:
    """Raises `SpoolUnusable` for a database that is not ours, or of a newer release."""
    if not {"meta", "events", "acks"} <= tables:
        raise SpoolUnusable(f"{path} is an SQLite database, but no spool of ours", fault=SpoolFault.FOREIGN)
    row = db.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchone()
    if row is not None and int(row[0]) > SCHEMA_VERSION:
        raise SpoolUnusable(
            f"spool {path} was written by a newer relight (schema {row[0]}, this one writes {SCHEMA_VERSION}):"
            " upgrade to drain all of it",
            fault=SpoolFault.NEWER,
        )


FAULTS = {
    sqlite3.SQLITE_CORRUPT: SpoolFault.CORRUPT,
    sqlite3.SQLITE_NOTADB: SpoolFault.CORRUPT,
    sqlite3.SQLITE_READONLY: SpoolFault.READ_ONLY,
    sqlite3.SQLITE_PERM: SpoolFault.READ_ONLY,
    sqlite3.SQLITE_FULL: SpoolFault.FULL,
}


def fault_of(error: sqlite3.Error) -> SpoolFault:
    """Extended codes say more in their upper bytes."""
    return FAULTS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, SpoolFault.FAILING)
