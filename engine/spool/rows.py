"""What lies in a spool, row by row."""

from dataclasses import dataclass
from typing import NamedTuple


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
    newest_ms: int | None = None


ROW_BYTES = 200
"""What an event's row holds beside its body: id, subject, hash and numbers."""
PAGE_BYTES = 4_096
_IN_PAGE_BYTES = PAGE_BYTES - 35
_LEAST_BYTES = (PAGE_BYTES - 12) * 32 // 255 - 23
_CHAINED_BYTES = PAGE_BYTES - 4


def stored_bytes(body_bytes: int) -> int:
    """What a row with such a body takes of the file (SQLite's file format, 1.6), as one of many of its size.

    A row is never torn for the sake of a page's end, and a long one has what exceeds a page in pages of its own.
    """
    row, chained = body_bytes + ROW_BYTES, 0
    if row > _IN_PAGE_BYTES:
        local = _LEAST_BYTES + (row - _LEAST_BYTES) % _CHAINED_BYTES
        local = local if local <= _IN_PAGE_BYTES else _LEAST_BYTES
        row, chained = local, -(-(row - local) // _CHAINED_BYTES)
    return PAGE_BYTES // max(1, (PAGE_BYTES - 16) // (row + 8)) + chained * PAGE_BYTES
