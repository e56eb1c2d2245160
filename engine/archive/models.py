"""What an archive consists of: its root, its segments' manifests and indexes, its keys."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from relight.events.values import Sha256, Time

FORMAT: Literal[1] = 1
ROOT = "archive.json"
SEGMENTS, KEYS, CONTENTS, WITNESSES = "segments/", "keys/", "contents/", "witnesses/"
"""Prefixes of the names of what an archive holds; names are relative to its place."""

Hex = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2})+$")]
Whole = Annotated[int, Field(ge=0)]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Root(Part):
    """`archive.json`, written once: whose archive this is, and which key is the first to be believed; signed by it."""

    format: Literal[1]
    archive: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    stream: str
    created_at: Time
    key: str


class File(Part):
    """A file beside a manifest: its name below the archive's place, bytes and SHA-256."""

    name: Annotated[str, StringConstraints(pattern=r"^segments/[0-9]{12,}-[0-9a-f]{16}\.(messages|index)\.zst$")]
    size_bytes: Whole
    sha256: Sha256


class Frame(Part):
    """A zstd frame of its own within the messages' file, so that damage to one leaves the others readable."""

    offset_bytes: Whole
    size_bytes: Whole
    sha256: Sha256
    messages: Annotated[int, Field(ge=1)]


class Span(Part):
    """What a segment holds of one publisher: so many events, their lowest and highest number, the latter's SHA-256."""

    publisher: str
    events: Annotated[int, Field(ge=1)]
    first_pseq: Whole
    last_pseq: Whole
    last_sha256: Sha256


class Manifest(Part):
    """A sealed segment: everything in it is fixed by `messages_file` and `index_file`, and all before it by
    `previous_sha256`. So each manifest, signed, is the head of the whole archive.

    `incarnation` counts the rewinds of the stream that were noticed, from 1: sequences of a later one replace those of
    an earlier one from the first that differs. `last_sha256` is that of the last message (subject, NUL, body).
    """

    format: Literal[1]
    archive: str
    segment: Annotated[int, Field(ge=1)]
    previous_sha256: Sha256
    incarnation: Annotated[int, Field(ge=1)]
    first_seq: Annotated[int, Field(ge=1)]
    last_seq: Annotated[int, Field(ge=1)]
    last_sha256: Sha256
    first_timestamp_ns: int
    last_timestamp_ns: int
    messages: Annotated[int, Field(ge=1)]
    messages_file: File
    index_file: File
    frames: Annotated[tuple[Frame, ...], Field(min_length=1)]
    spans: tuple[Span, ...]
    sealed_at: Time
    key: str


class Index(Part):
    """Of each message in order: sequence, whose it is (`publishers[owners[i]]`; -1: no readable envelope), number; of
    its record the bytes, and the first 8 of its SHA-256: which message is damaged, and where a number lies."""

    seqs: tuple[int, ...]
    publishers: tuple[str, ...]
    owners: tuple[int, ...]
    pseqs: tuple[int, ...]
    sizes: tuple[int, ...]
    leaves: Hex


class KeyStatement(Part):
    """`keys/<id>.json`: a public key, signed by the one before it; the first signs itself.

    It speaks for segments beyond `after_segment`, which was the last one then, with that manifest's SHA-256. The first
    segment that it seals ends the key before it.
    """

    format: Literal[1]
    archive: str
    key: str
    public: Hex
    endorsed_by: str
    after_segment: Whole
    after_sha256: Sha256
    stated_at: Time


class WitnessStatement(Part):
    """`witnesses/<segment>-<key>.json`: another's word that this was the archive's head; signed by the witness."""

    format: Literal[1]
    archive: str
    segment: Annotated[int, Field(ge=1)]
    manifest_sha256: Sha256
    witness: str
    public: Hex
    region: str
    witnessed_at: Time


def manifest_name(segment: int) -> str:
    return f"{SEGMENTS}{segment:012d}.json"


def key_name(key: str) -> str:
    return f"{KEYS}{key}.json"


def witness_name(segment: int, key: str) -> str:
    return f"{WITNESSES}{segment:012d}-{key}.json"


def content_name(tenant_token: str, sha256: str) -> str:
    """`tenant_token` is the tenant as it stands in subjects: escaped."""
    return f"{CONTENTS}{tenant_token}/{sha256}.zst"
