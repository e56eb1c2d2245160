"""Makes a segment out of messages: frames, index, manifest, signature."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import orjson
import zstandard

from relight.engine.archive.keys import SigningKey
from relight.engine.archive.models import FORMAT, SEGMENTS, File, Frame, Index, Manifest, Span, manifest_name
from relight.engine.archive.records import encode_record, leaf
from relight.engine.archive.signed import document_sha256, sign_document, signed_part
from relight.engine.log.links import Link, link_of
from relight.engine.log.reader import Message
from relight.events.envelope import GENESIS

FRAME_MESSAGES = 500
LEVEL = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The last sealed segment, and so the archive up to there; segment 0: nothing is sealed yet."""

    archive: str
    segment: int = 0
    manifest_sha256: str = GENESIS
    incarnation: int = 1
    last_seq: int = 0
    last_sha256: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What is written, in this order; the manifest last, for with it the segment is there."""

    manifest: Manifest
    files: dict[str, bytes]
    manifest_bytes: bytes

    @property
    def name(self) -> str:
        return manifest_name(self.manifest.segment)

    @property
    def head(self) -> Head:
        return head_of(self.manifest, self.manifest_bytes)


def head_of(manifest: Manifest, manifest_bytes: bytes) -> Head:
    return Head(
        archive=manifest.archive,
        segment=manifest.segment,
        manifest_sha256=document_sha256(signed_part(manifest_bytes)[0]),
        incarnation=manifest.incarnation,
        last_seq=manifest.last_seq,
        last_sha256=manifest.last_sha256,
        key=manifest.key,
    )


@dataclass(slots=True)
class _Spans:
    found: dict[str, list[tuple[int, str]]] = field(default_factory=dict)

    def spans(self) -> tuple[Span, ...]:
        spans = []
        for publisher, events in self.found.items():
            last_pseq, last_sha256 = max(events)
            spans.append(
                Span(
                    publisher=publisher,
                    events=len(events),
                    first_pseq=min(events)[0],
                    last_pseq=last_pseq,
                    last_sha256=last_sha256,
                )
            )
        return tuple(spans)


def seal(
    messages: Sequence[Message], after: Head, *, incarnation: int, key: SigningKey, sealed_at: datetime
) -> Segment:
    """The segment that follows `after`; at least one message, in ascending sequence."""
    body, frames = _frames(messages)
    index, spans = index_of(messages, [link_of(message) for message in messages])
    index_body = zstandard.compress(orjson.dumps(index.model_dump()), LEVEL)
    segment = after.segment + 1
    messages_file, index_file = _file(segment, "messages", body), _file(segment, "index", index_body)
    manifest = Manifest(
        format=FORMAT,
        archive=after.archive,
        segment=segment,
        previous_sha256=after.manifest_sha256,
        incarnation=incarnation,
        first_seq=messages[0].seq,
        last_seq=messages[-1].seq,
        last_sha256=messages[-1].sha256,
        first_timestamp_ns=messages[0].timestamp_ns,
        last_timestamp_ns=messages[-1].timestamp_ns,
        messages=len(messages),
        messages_file=messages_file,
        index_file=index_file,
        frames=frames,
        spans=spans,
        sealed_at=sealed_at,
        key=key.id,
    )
    return Segment(
        manifest=manifest,
        files={messages_file.name: body, index_file.name: index_body},
        manifest_bytes=sign_document(manifest, key),
    )


def _frames(messages: Sequence[Message]) -> tuple[bytes, tuple[Frame, ...]]:
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
    frames, bodies, offset = [], [], 0
    for first in range(0, len(messages), FRAME_MESSAGES):
        part = messages[first : first + FRAME_MESSAGES]
        body = compressor.compress(b"".join(map(encode_record, part)))
        frames.append(Frame(offset_bytes=offset, size_bytes=len(body), sha256=_sha256(body), messages=len(part)))
        bodies.append(body)
        offset += len(body)
    return b"".join(bodies), tuple(frames)


def index_of(messages: Sequence[Message], links: Sequence[Link | None]) -> tuple[Index, tuple[Span, ...]]:
    """What is said of these messages; `links` are theirs."""
    spans, numbers = _Spans(), dict[str, int]()
    owners, pseqs = [], []
    for link in links:
        if link is None:
            owners.append(-1)
            pseqs.append(0)
            continue
        owners.append(numbers.setdefault(link.publisher, len(numbers)))
        pseqs.append(link.pseq)
        spans.found.setdefault(link.publisher, []).append((link.pseq, link.sha256))
    records = [encode_record(message) for message in messages]
    index = Index(
        seqs=tuple(message.seq for message in messages),
        publishers=tuple(numbers),
        owners=tuple(owners),
        pseqs=tuple(pseqs),
        sizes=tuple(map(len, records)),
        leaves=b"".join(map(leaf, records)).hex(),
    )
    return index, spans.spans()


def _file(segment: int, kind: str, body: bytes) -> File:
    """Named by what it holds: of two archivers at work on the same segment none overwrites the other's."""
    sha256 = _sha256(body)
    return File(name=f"{SEGMENTS}{segment:012d}-{sha256[:16]}.{kind}.zst", size_bytes=len(body), sha256=sha256)


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
