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
    """What is on this disk and not yet acknowledged by the stream; the bytes include content.

    `stored_bytes`: what it takes of the file, at most.
    """

    events: int
    bytes: int
    oldest_ms: int | None
    newest_ms: int | None = None
    stored_bytes: int = 0


ROW_BYTES = 200
"""What an event's row holds beside its body: id, subject, hash and numbers."""
PAGE_BYTES = 4_096
_USABLE_BYTES = PAGE_BYTES - 16


def stored_bytes(body_bytes: int) -> int:
    """What a row with such a body takes on disk, at most: rows are never torn, so a page may stay half empty."""
    row = body_bytes + ROW_BYTES
    if row <= _USABLE_BYTES:
        return PAGE_BYTES // (_USABLE_BYTES // row)
    return PAGE_BYTES * (2 + row // (PAGE_BYTES - 4))
