"""Writes contents to the object store, and erases them so that nothing of them stays readable."""

import asyncio
import hashlib
import os
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

import orjson
import uuid_utils
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from relight.engine.log.buckets import SHARED, Bucket, declare_bucket
from relight.engine.log.content import ERASED_BY, ContentReader, Held, meta_subject
from relight.engine.log.publishing import (
    MAX_BATCH_BYTES,
    MAX_BATCH_EVENTS,
    WRONG_LAST_SEQUENCE,
    StreamRefused,
    request,
)
from relight.engine.log.topology import EXPECTED_LAST, REQUEST_TIMEOUT_S

CHUNK_BYTES = 128 * 1024
ROLLUP = {"Nats-Rollup": "sub"}
LOOKED_UP_AT_ONCE = 64


class ContentBody(Protocol):
    """Whose it is, its digest and its bytes."""

    @property
    def tenant(self) -> str: ...

    @property
    def sha256(self) -> str: ...

    @property
    def body(self) -> bytes: ...


class _Part(NamedTuple):
    subject: str
    body: bytes
    headers: Mapping[str, str]


class ContentStore:
    """Chunks stand below a subject that follows from the content's name, so that an erasure finds those of a writer
    that was killed, too. What describes a content is written by compare-and-set: one that was erased meanwhile stays
    erased."""

    def __init__(self, client: Client, bucket: Bucket = SHARED, *, tagged: bool = True, direct: bool = False) -> None:
        """`tagged`: see `declare_bucket`; `direct`: see `ContentReader`."""
        self.bucket = bucket
        self._client = client
        self._js = client.jetstream(timeout=REQUEST_TIMEOUT_S)
        self._tagged = tagged
        self._declared = False
        self.reader = ContentReader(self._js, bucket, direct=direct)

    async def put(self, contents: Sequence[ContentBody]) -> int:
        """Stores what is neither there nor erased, and returns how many that was; durable then."""
        await self.declare()
        wanted = {(content.tenant, content.sha256): content for content in contents}
        there = await self.known(list(wanted))
        stored = 0
        for batch in _batches(_parts(content, self.bucket) for key, content in wanted.items() if key not in there):
            try:
                await self._put_at_once([part for parts in batch for part in parts])
                stored += len(batch)
            except StreamRefused:  # another writer or an erasure came first, or it cannot be a batch
                for parts in batch:
                    stored += await self._put_singly(parts)
        return stored

    async def erase(self, tenant: str, sha256: str, erasure: str) -> int:
        """Deletes it and keeps it from coming back; returns the bytes deleted. Repeating completes what was cut short.

        The server overwrites the bytes in its files.
        """
        await self.declare()
        held = await self.reader.look_up(tenant, sha256)
        while held is None or not held.erased:
            held = await self._mark_erased(tenant, sha256, erasure, held)
        erased_bytes = 0
        for subject in (self.bucket.chunks + held.nuid, f"{_chunk_prefix(tenant, sha256, self.bucket)}.>"):
            erased_bytes += await self._delete(subject)
        return erased_bytes

    async def discard(self, tenant: str, sha256: str) -> None:
        """Takes away what is not what its name says, so that it can be put again; what was erased stays so."""
        await self.declare()
        held = await self.reader.look_up(tenant, sha256)
        if held is None or held.erased:
            return
        await self._delete(self.bucket.chunks + held.nuid)
        with suppress(NotFoundError):
            await self._js.delete_msg(self.bucket.stream, held.seq)

    async def known(self, names: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Of these (tenant, SHA-256), those that are there or were erased."""
        there = set()
        for first in range(0, len(names), LOOKED_UP_AT_ONCE):
            some = names[first : first + LOOKED_UP_AT_ONCE]
            found = await asyncio.gather(*(self.reader.look_up(*name) for name in some))
            there |= {name for name, held in zip(some, found, strict=True) if held is not None}
        return there

    async def _delete(self, subject: str) -> int:
        """The bytes deleted. No purge, which is what nats-py does: it leaves them in the server's files."""
        deleted_bytes = 0
        async for chunk in self.reader.messages(subject):
            await self._js.delete_msg(self.bucket.stream, chunk.seq or 0)
            deleted_bytes += len(chunk.data or b"")
        return deleted_bytes

    async def _mark_erased(self, tenant: str, sha256: str, erasure: str, held: Held | None) -> Held | None:
        """The mark is first: what is killed after it leaves chunks without a name, and the mark says where."""
        meta = {
            **_meta(tenant, sha256, held.nuid if held else _new_nuid(tenant, sha256), b"", self.bucket),
            "deleted": True,
            "digest": "",
            "description": f"{ERASED_BY}{erasure}",
        }
        headers = {**ROLLUP, EXPECTED_LAST: str(held.seq if held else 0)}
        try:
            await request(self._client, meta_subject(tenant, sha256, self.bucket), orjson.dumps(meta), headers)
        except StreamRefused as error:
            if error.code not in WRONG_LAST_SEQUENCE:
                raise
        return await self.reader.look_up(tenant, sha256)

    async def _put_at_once(self, parts: Sequence[_Part]) -> None:
        """All or nothing, and one fsync: ten times as fast as singly. Raises `StreamRefused`."""
        if len(parts) > MAX_BATCH_EVENTS:
            raise StreamRefused(0, f"{len(parts)} messages are too many for a batch")
        batch_id = uuid_utils.uuid4().hex
        for number, part in enumerate(parts, 1):
            headers = {**part.headers, "Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(number)}
            if number < len(parts):
                await self._client.publish(part.subject, part.body, headers=headers)
            else:
                await request(self._client, part.subject, part.body, {**headers, "Nats-Batch-Commit": "1"})

    async def _put_singly(self, parts: Sequence[_Part]) -> bool:
        """False where another writer or an erasure came first."""
        *chunks, meta = parts
        seqs: list[int] = []
        try:
            for chunk in chunks:
                seqs.append((await request(self._client, chunk.subject, chunk.body, {}))[0])  # noqa: PERF401
            await request(self._client, meta.subject, meta.body, dict(meta.headers))
        except StreamRefused as error:
            for seq in seqs:
                await self._js.delete_msg(self.bucket.stream, seq)
            if error.code not in WRONG_LAST_SEQUENCE:
                raise
            return False
        return True

    async def declare(self) -> None:
        if not self._declared:
            await declare_bucket(self._js, self.bucket, tagged=self._tagged)
            self._declared = True


def _batches(objects: Iterable[list[_Part]]) -> Iterator[list[list[_Part]]]:
    """As many objects as fit into one batch; one that does not fit stands alone."""
    batch: list[list[_Part]] = []
    size = messages = 0
    for parts in objects:
        bytes_ = sum(len(part.body) for part in parts)
        if batch and (size + bytes_ > MAX_BATCH_BYTES or messages + len(parts) > MAX_BATCH_EVENTS):
            yield batch
            batch, size, messages = [], 0, 0
        batch.append(parts)
        size, messages = size + bytes_, messages + len(parts)
    if batch:
        yield batch


def _parts(content: ContentBody, bucket: Bucket) -> list[_Part]:
    """An object's messages; what describes it is the last, for with it the object is there."""
    nuid = _new_nuid(content.tenant, content.sha256)
    chunks = [
        _Part(bucket.chunks + nuid, content.body[first : first + CHUNK_BYTES], {})
        for first in range(0, len(content.body), CHUNK_BYTES)
    ]
    meta = orjson.dumps(_meta(content.tenant, content.sha256, nuid, content.body, bucket))
    return [*chunks, _Part(meta_subject(content.tenant, content.sha256, bucket), meta, {EXPECTED_LAST: "0"})]


def _meta(tenant: str, sha256: str, nuid: str, body: bytes, bucket: Bucket) -> dict[str, object]:
    """As the object store's own clients read it (ADR-20)."""
    return {
        "name": f"{tenant}/{sha256}",
        "bucket": bucket.name,
        "nuid": nuid,
        "size": len(body),
        "chunks": -(-len(body) // CHUNK_BYTES),
        "digest": f"SHA-256={urlsafe_b64encode(hashlib.sha256(body).digest()).decode()}",
        "options": {"max_chunk_size": CHUNK_BYTES},
    }


def _chunk_prefix(tenant: str, sha256: str, bucket: Bucket) -> str:
    return bucket.chunks + _prefix(tenant, sha256)


def _prefix(tenant: str, sha256: str) -> str:
    return hashlib.sha256(f"{tenant}/{sha256}".encode()).hexdigest()[:32]


def _new_nuid(tenant: str, sha256: str) -> str:
    """Two tokens of a subject: the prefix, and one that no other writer has."""
    return f"{_prefix(tenant, sha256)}.{os.urandom(8).hex()}"
