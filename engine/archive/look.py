"""How an archiver is, as health, commands and tests ask."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class ArchiverState(StrEnum):
    """What it is doing."""

    STARTING = "starting"
    LIVE = "live"
    STANDBY = "standby"
    """another archiver is at work on this archive"""
    FAILED = "failed"
    """something is away or wrong: it tries again by itself"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiverLook:
    """`read_seq`: up to where it has read, `sealed_seq`: up to where it has sealed, of the stream as it is now.

    `oldest_in_hand`: when the stream took the first message that is read and not sealed. `missing_*`: what was gone
    from the stream before it was sealed, in all and noticed by this process; `holes`: publishers whose chain has one.
    `contents`: copied by this process; `contents_missing`: referred to, and neither in the store nor in the archive.
    """

    place: str
    state: ArchiverState
    seal_s: float
    failure: str | None = None
    failing_for_s: float | None = None
    archive: str | None = None
    key: str | None = None
    segment: int = 0
    incarnation: int = 1
    sealed_seq: int = 0
    sealed_at: datetime | None = None
    read_seq: int = 0
    in_hand: int = 0
    oldest_in_hand: datetime | None = None
    messages: int = 0
    size_bytes: int = 0
    missing_messages: int = 0
    missing: tuple[tuple[int, int], ...] = ()
    missing_now: tuple[tuple[int, int], ...] = ()
    holes: int = 0
    forks: int = 0
    unread: tuple[int, ...] = ()
    tables_failure: str | None = None
    contents: int = 0
    contents_missing: int = 0
