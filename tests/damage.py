"""Damages the store of a stopped NATS server, in the format of its block files, and says which sequences that takes."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from relight.engine.embedded.nats import EmbeddedNats

HEAD = struct.Struct("<IQQH")
"""Bytes of the record (the topmost bit: it has headers), sequence, timestamp, bytes of the subject."""
HEADERS = 1 << 31
CHECKSUM_BYTES = 8


class Record(NamedTuple):
    at: int
    size: int
    seq: int


def blocks(nats: EmbeddedNats) -> list[Path]:
    """The stream's block files, in order."""
    found = nats.store.glob("jetstream/*/streams/EV/msgs/*.blk")
    return sorted(found, key=lambda path: int(path.stem))


def records(block: bytes) -> Iterator[Record]:
    at = 0
    while at + HEAD.size <= len(block):
        size, seq, _, _ = HEAD.unpack_from(block, at)
        yield Record(at, size & ~HEADERS, seq)
        at += size & ~HEADERS


def forget_index(nats: EmbeddedNats) -> None:
    """As after a kill: the server reads the blocks themselves when it starts."""
    for block in blocks(nats):
        (block.parent / "index.db").unlink(missing_ok=True)


def flip(nats: EmbeddedNats, seqs: set[int]) -> None:
    """One bit in the body of each."""
    for block in blocks(nats):
        body = bytearray(block.read_bytes())
        for record in list(records(body)):
            if record.seq in seqs:
                body[record.at + record.size - CHECKSUM_BYTES - 20] ^= 1
        block.write_bytes(body)


def cut(nats: EmbeddedNats, first: int, last: int | None) -> set[int]:
    """Takes out the bytes from within one message to within another of its block, or to the block's end.

    The server gives up the rest of that block.
    """
    block, found = _block_of(nats, first)
    body = block.read_bytes()
    rest = b"" if last not in found else body[found[last].at + 33 :]
    block.write_bytes(body[: found[first].at + 17] + rest)
    return {seq for seq in found if seq >= first}


def take_out(nats: EmbeddedNats, first: int, last: int) -> set[int]:
    """Takes out whole messages of the first one's block."""
    block, found = _block_of(nats, first)
    gone = {seq for seq in found if first <= seq <= last}
    body = block.read_bytes()
    end = found[max(gone)]
    block.write_bytes(body[: found[first].at] + body[end.at + end.size :])
    return gone


def _block_of(nats: EmbeddedNats, seq: int) -> tuple[Path, dict[int, Record]]:
    for block in blocks(nats):
        found = {record.seq: record for record in records(block.read_bytes())}
        if seq in found:
            return block, found
    raise AssertionError(f"message {seq} is in no block")
