"""Finds a spool's rows in the raw bytes of its files, whatever is broken around them (SQLite's file format, 1.6, 2.1).

A row counts only if its own SHA-256 says so; therefore pages need no trust: neither header nor tree nor WAL checksums.
"""

import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import orjson

from relight.engine.log.chain import body_sha256
from relight.engine.spool.addresses import address_of
from relight.engine.spool.rows import PAGE_BYTES, Spooled, SpooledContent

LEAF_OF_TABLE = b"\x0d"
WAL_HEADER, FRAME_HEADER = 32, 24
FILE_HEADER = 100
MOST_PAGES = 1 << 22
"""A number beyond it is none."""
NOTHING = b""
Buffer = mmap.mmap | bytes
Value = int | bytes | None


@dataclass(frozen=True, slots=True)
class Torn:
    """A row of events whose number can be read, and whose bytes are not what was written."""

    pseq: int


class Pages(Sequence[bytes]):
    """The pages of a file, of which a WAL may hold later states; only mapped, for it may be large."""

    def __init__(self, file: Buffer, wal: Buffer = NOTHING) -> None:
        self._file = file
        self._wal = wal
        self.framed = list(_frames(wal))
        """Number and place of each page in the WAL, in the order they were written."""
        self._later = dict(self.framed)

    def __len__(self) -> int:
        return max(-(-len(self._file) // PAGE_BYTES), max(self._later, default=0))

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        if (at := self._later.get(index + 1)) is not None:
            return self.of_wal(at)
        return bytes(self._file[index * PAGE_BYTES : (index + 1) * PAGE_BYTES]).ljust(PAGE_BYTES, b"\0")

    def of_wal(self, at: int) -> bytes:
        return bytes(self._wal[at : at + PAGE_BYTES])


def carve(path: Path) -> Iterator[Spooled | SpooledContent | Torn]:
    """Every row of events and contents in a spool's file and its WAL; the same may come several times.

    What was deleted and not yet overwritten comes, too. Raises `OSError`.
    """
    with _mapped(path) as file, _mapped(path.with_name(f"{path.name}-wal")) as wal:
        pages, both = Pages(file), Pages(file, wal)
        for index in range(len(pages)):
            yield from _rows_of(pages[index], index + 1, pages)
        # A row of several pages may have some of them in the file, and some in the WAL.
        for number, at in both.framed:
            yield from _rows_of(both.of_wal(at), number, both)


@contextmanager
def _mapped(path: Path) -> Iterator[Buffer]:
    if not path.is_file() or not path.stat().st_size:
        yield NOTHING
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        yield mapped


def _frames(wal: Buffer) -> Iterator[tuple[int, int]]:
    most = len(wal) // PAGE_BYTES + MOST_PAGES
    for start in range(WAL_HEADER, len(wal) - FRAME_HEADER - PAGE_BYTES + 1, FRAME_HEADER + PAGE_BYTES):
        number = int.from_bytes(wal[start : start + 4], "big")
        if 0 < number < most:
            yield number, start + FRAME_HEADER


def _rows_of(page: bytes, number: int, pages: Sequence[bytes]) -> Iterator[Spooled | SpooledContent | Torn]:
    if page[:1] != LEAF_OF_TABLE:
        return
    start = FILE_HEADER if number == 1 else 0
    cells = int.from_bytes(page[start + 3 : start + 5], "big")
    for n in range(min(cells, PAGE_BYTES // 6)):
        at = start + 8 + 2 * n
        offset = int.from_bytes(page[at : at + 2], "big")
        try:
            row = _row(page, offset, pages)
        except (IndexError, ValueError, KeyError, TypeError):
            continue
        if row is not None:
            yield row


def _row(page: bytes, offset: int, pages: Sequence[bytes]) -> Spooled | SpooledContent | Torn | None:
    size, offset = _varint(page, offset)
    rowid, offset = _varint(page, offset)
    payload = _payload(page, offset, size, pages)
    match _record(payload):
        case [None, bytes(id_), bytes(subject), bytes(body), bytes(sha256), int(recorded_ms)] if len(sha256) == 64:
            if body_sha256(body).encode() != sha256:
                return Torn(rowid)
            # What its bytes say themselves is right; the columns beside them may be broken.
            pseq, address = int(orjson.loads(body)["pseq"]), address_of(body)
            own_id, own_subject = address or (id_.decode(), subject.decode())
            return Spooled(pseq, own_id, own_subject, body, sha256.decode(), recorded_ms)
        case [bytes(tenant), bytes(sha256), bytes(body), int(recorded_ms)] if body_sha256(body).encode() == sha256:
            return SpooledContent(tenant.decode(), sha256.decode(), body, recorded_ms)
        case _:
            return None


def _varint(page: bytes, at: int) -> tuple[int, int]:
    value = 0
    for n in range(9):
        byte = page[at + n]
        if n == 8:
            return (value << 8) | byte, at + 9
        value = (value << 7) | (byte & 0x7F)
        if byte < 0x80:
            return value, at + n + 1
    raise ValueError("no varint")


def _payload(page: bytes, at: int, size: int, pages: Sequence[bytes]) -> bytes:
    usable = PAGE_BYTES
    if size > len(pages) * PAGE_BYTES + PAGE_BYTES:
        raise ValueError("longer than the file")
    if size <= usable - 35:
        if at + size > usable:
            raise ValueError("beyond the page")
        return page[at : at + size]
    least = (usable - 12) * 32 // 255 - 23
    local = least + (size - least) % (usable - 4)
    if local > usable - 35:
        local = least
    parts, left = [page[at : at + local]], size - local
    following = int.from_bytes(page[at + local : at + local + 4], "big")
    while left > 0:
        if not 0 < following <= len(pages):
            raise ValueError("its next page is missing")
        overflow = pages[following - 1]
        parts.append(overflow[4 : 4 + min(left, usable - 4)])
        left -= usable - 4
        following = int.from_bytes(overflow[:4], "big")
    return b"".join(parts)


def _record(payload: bytes) -> list[Value]:
    """The values of a record; text as its bytes."""
    header, at = _varint(payload, 0)
    if header > 64:
        raise ValueError("no record of ours")
    types: list[int] = []
    while at < header:
        type_, at = _varint(payload, at)
        types.append(type_)
    values: list[Value] = []
    for type_ in types:
        size = _size(type_)
        part = payload[at : at + size]
        if len(part) != size:
            raise ValueError("cut off")
        match type_:
            case 0:
                values.append(None)
            case 8 | 9:
                values.append(type_ - 8)
            case _ if type_ >= 12:
                values.append(part)
            case _:
                values.append(int.from_bytes(part, "big", signed=True))
        at += size
    return values


def _size(type_: int) -> int:
    """Bytes of a serial type. Raises `ValueError` for those that our rows do not have."""
    if type_ >= 12:
        return (type_ - 12) // 2
    sizes = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 8: 0, 9: 0}
    if type_ not in sizes:
        raise ValueError("no record of ours")
    return sizes[type_]
