"""What a row is, and the identity that follows from it alone: its events' ids, its entity's key, the publisher."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel

from relight.engine.clock import make_id
from relight.events.base import Event

EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
MAX_EVENTS = 16
"""Of one row: so many ids are kept in order."""
_MILLISECOND = timedelta(milliseconds=1)


class Malformed(BaseModel):
    """A line that cannot be imported; the others are."""

    line: int
    reason: str


class Entry(Protocol):
    """A row: its place among the file's rows, its text there, and when it happened."""

    @property
    def ordinal(self) -> int: ...
    @property
    def text(self) -> bytes: ...
    @property
    def time(self) -> datetime: ...

    def events(self, key: str) -> Sequence[Event]:
        """What it means, a cause before its consequence; `key` names the row's entity, and no other row's."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of file. Its name is part of every identity and never changes.

    `read` is given the time now, for no row may lie in the future; it raises `ImportRefused`.
    """

    name: str
    read: Callable[[Path, datetime], Iterator[Entry | Malformed]]


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Whose the rows are: the same rows of another tenant or region are other events."""

    tenant: str
    region: str


class Identity:
    """Of a source with these rows; `publisher` holds for those added so far."""

    def __init__(self, format: Format, owner: Owner) -> None:
        self.format = format
        self.owner = owner
        self._origin = "\x00".join((format.name, owner.tenant, owner.region)).encode()
        self._rows = hashlib.sha256(self._origin)

    def add(self, entry: Entry) -> None:
        self._rows.update(b"\x00%d\x00%b" % (entry.ordinal, entry.text))

    @property
    def publisher(self) -> str:
        return f"import-{self.format.name}-{self._rows.hexdigest()[:32]}"

    def events(self, entry: Entry) -> Iterator[tuple[str, Event]]:
        """The row's events with their ids, which ascend.

        An id is a UUIDv7 of the row's millisecond; after it come 7 bits of the row's hash, the event's number, and
        the hash of both.
        """
        row = hashlib.sha256(b"%b\x00%d\x00%b" % (self._origin, entry.ordinal, entry.text))
        unix_ms, counter = (entry.time - EPOCH) // _MILLISECOND, row.digest()[0] // 2 * MAX_EVENTS
        for number, event in enumerate(entry.events(f"{self.format.name}-{row.hexdigest()[:32]}")):
            assert number < MAX_EVENTS, f"{self.format.name}: a row has at most {MAX_EVENTS} events"
            digest = hashlib.sha256(row.digest() + b"%d" % number).hexdigest()
            tail = f"{'89ab'[int(digest[0], 16) % 4]}{digest[1:4]}-{digest[4:16]}"
            yield make_id(unix_ms, counter + number, tail), event
