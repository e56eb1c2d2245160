"""A message as the archive keeps it: the stream's sequence and timestamp, subject, message id and exact bytes."""

import hashlib
from collections.abc import Iterator
from struct import Struct, error

from relight.engine.errors import ArchiveDamaged
from relight.engine.log.reader import Message

HEAD = Struct(">QQIII")
"""Sequence, timestamp (Unix ns), bytes of subject, of message id, of body; these three follow."""
LEAF_BYTES = 8
ANY_BYTES = "surrogateescape"
"""What is no UTF-8 in a subject or an id comes back as it was, too: nobody can send what cannot be archived."""


def encode_record(message: Message) -> bytes:
    subject = message.subject.encode(errors=ANY_BYTES)
    message_id = message.message_id.encode(errors=ANY_BYTES)
    head = HEAD.pack(message.seq, message.timestamp_ns, len(subject), len(message_id), len(message.body))
    return b"".join((head, subject, message_id, message.body))


def leaf(record: bytes) -> bytes:
    """Tells one record from another; that all of them are right the manifest's SHA-256 says."""
    return hashlib.sha256(record).digest()[:LEAF_BYTES]


def split_records(frame: bytes) -> Iterator[bytes]:
    """The records of a decompressed frame. Raises `ArchiveDamaged` where one does not fit."""
    at = 0
    while at < len(frame):
        try:
            _, _, subject, message_id, body = HEAD.unpack_from(frame, at)
        except error:
            raise ArchiveDamaged("a record's head is cut off") from None
        end = at + HEAD.size + subject + message_id + body
        if end > len(frame):
            raise ArchiveDamaged("a record is cut off")
        yield frame[at:end]
        at = end


def decode_record(record: bytes) -> Message:
    """Raises `ArchiveDamaged` when it is none of ours."""
    seq, timestamp_ns, subject, message_id, body = HEAD.unpack_from(record)
    names = HEAD.size + subject
    ids = names + message_id
    if ids + body != len(record):
        raise ArchiveDamaged("a record has another length than it says")
    return Message(
        seq,
        timestamp_ns,
        record[HEAD.size : names].decode(errors=ANY_BYTES),
        record[ids:],
        record[names:ids].decode(errors=ANY_BYTES),
    )
