"""Reads a segment's messages out of its frames, and of damaged ones as far as they go."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate

import zstandard

from relight.engine.archive.models import Frame, Index
from relight.engine.archive.reading import frame_messages
from relight.engine.archive.records import LEAF_BYTES, decode_record, leaf, split_records
from relight.engine.errors import ArchiveDamaged
from relight.engine.log.reader import Message

MAX_WINDOW_BYTES = 1 << 27
MAX_FRAME_BYTES = 512 << 20
"""What a frame may make us set aside, and what may come out of it; ours need less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Harmed:
    """A message that is not as it was sealed; the index says where it stood and whose it was, if it is whole."""

    seq: int | None = None
    publisher: str | None = None
    pseq: int | None = None


Entry = Message | Harmed


def sound_entries(body: bytes, frames: Sequence[Frame]) -> list[Entry]:
    """Of a file that is as its manifest says. Raises `ArchiveDamaged` where what was signed cannot be read."""
    return [message for frame in frames for message in frame_messages(body, frame.offset_bytes)]


def salvaged_entries(body: bytes, frames: Sequence[Frame], index: Index | None) -> Iterator[Entry]:
    """Of a file that is not: each message of the manifest's frames, or that it is harmed."""
    first = 0
    for frame in frames:
        part = body[frame.offset_bytes : frame.offset_bytes + frame.size_bytes]
        if sha256(part).hexdigest() == frame.sha256:
            yield from frame_messages(part, 0)
        elif index is None:
            yield from (Harmed() for _ in range(frame.messages))
        else:
            positions = range(first, first + frame.messages)
            # Byte by byte, or what comes out before the step that fails would be lost with it.
            limit_bytes = sum(index.sizes[first : positions.stop])
            records, _, _ = _decoded(part, step_bytes=1, limit_bytes=limit_bytes)
            yield from _compared(records, index, positions)
        first += frame.messages


def unsigned_entries(body: bytes) -> list[Entry]:
    """Of a file whose manifest cannot be believed: frame after frame, as they come. Raises `ArchiveDamaged`."""
    found: list[Entry] = []
    while body:
        records, fault, body = _decoded(body, step_bytes=1 << 16, limit_bytes=MAX_FRAME_BYTES)
        if fault:
            raise ArchiveDamaged(f"cannot be decompressed: {fault}")
        found += map(decode_record, split_records(records))
    return found


def described(index: Index, position: int) -> Harmed:
    owner = index.owners[position]
    return Harmed(
        seq=index.seqs[position],
        publisher=index.publishers[owner] if owner >= 0 else None,
        pseq=index.pseqs[position] if owner >= 0 else None,
    )


def _compared(records: bytes, index: Index, positions: range) -> Iterator[Entry]:
    """What of a damaged frame's records is as the index says, at the places that it says."""
    sizes = [index.sizes[position] for position in positions]
    leaves = bytes.fromhex(index.leaves)
    for position, end, size in zip(positions, accumulate(sizes), sizes, strict=True):
        record = records[end - size : end]
        at = position * LEAF_BYTES
        if len(record) == size and leaf(record) == leaves[at : at + LEAF_BYTES]:
            yield decode_record(record)
        else:
            yield described(index, position)


def _decoded(body: bytes, *, step_bytes: int, limit_bytes: int) -> tuple[bytes, str, bytes]:
    """What comes out of the first frame, why it does not go on if it does not, and what follows it."""
    decoder = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).decompressobj()
    found: list[bytes] = []
    size = 0
    for at in range(0, len(body), step_bytes):
        try:
            part = decoder.decompress(body[at : at + step_bytes])
        except zstandard.ZstdError as error:
            return b"".join(found), str(error), b""
        found.append(part)
        size += len(part)
        if size > limit_bytes:
            return b"".join(found), f"it is larger than {limit_bytes} bytes", b""
        if decoder.eof:
            return b"".join(found), "", decoder.unused_data + body[at + step_bytes :]
    return b"".join(found), "it is cut off", b""
