"""What a row is, and the identity that follows from it alone: its events' ids, its entity's key, the publisher."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel

from relight.engine.clock import hashed_tail, make_id
from relight.events.base import Event

EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
MAX_EVENTS = 16
"""Of one row in one millisecond: so many ids are kept in order."""
_MILLISECOND = timedelta(milliseconds=1)


class Malformed(BaseModel):
    """What cannot be imported; all else is. `line` is null where the file as a whole is meant."""

    line: int | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """An event of a row, and when it happened.

    `content` are the bytes whose digest the event holds, `cause` the number, from 0, of the row's event that led to it.
    """

    event: Event
    time: datetime
    content: bytes | None = None
    correlation: str | None = None
    cause: int | None = None


class Entry(Protocol):
    """A row: its place among the file's rows, and its text there."""

    @property
    def ordinal(self) -> int: ...
    @property
    def text(self) -> bytes: ...

    def facts(self, key: str) -> Sequence[Fact]:
        """What it means, in order of time, a cause before its consequence; `key` names the row, and no other.

        A ruling among them is the first on its entity.
        """


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of file. Its name is part of every identity and never changes.

    `read` is given the time now, for no row may lie in the future; it raises `ImportRefused`. `rows` is what people
    call them; where a file is one row, it is called by that row's key.
    """

    name: str
    rows: str
    one_a_file: bool = False
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

    def key(self, entry: Entry) -> str:
        """What the row's entity is called."""
        return self._key(self._row(entry))

    def facts(self, entry: Entry) -> Iterator[tuple[str, Fact]]:
        """What the row means, each with its event's id; these ascend.

        An id is a UUIDv7 of the fact's millisecond; after it come 7 bits of the row's hash, the event's number within
        the millisecond, and the hash of row and event.
        """
        row = self._row(entry)
        before_ms, within = -1, 0
        for number, fact in enumerate(entry.facts(self._key(row))):
            unix_ms = (fact.time - EPOCH) // _MILLISECOND
            assert unix_ms >= before_ms, f"{self.format.name}: a row's events are in order of time"
            within = within + 1 if unix_ms == before_ms else 0
            assert within < MAX_EVENTS, f"{self.format.name}: a row has at most {MAX_EVENTS} events a millisecond"
            before_ms, counter = unix_ms, row[0] // 2 * MAX_EVENTS + within
            digest = hashlib.sha256(row + b"%d" % number).hexdigest()
            tail = hashed_tail(digest)
            yield make_id(unix_ms, counter, tail), fact

    def _row(self, entry: Entry) -> bytes:
        return hashlib.sha256(b"%b\x00%d\x00%b" % (self._origin, entry.ordinal, entry.text)).digest()

    def _key(self, row: bytes) -> str:
        return f"{self.format.name}-{row.hex()[:32]}"
