"""Reads content back by its digest, and what the object store says of it."""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass

import orjson
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from relight.engine.errors import ContentErased, ContentError
from relight.engine.log.buckets import SHARED, Bucket
from relight.events.values import Content

BUCKET_STREAM, CHUNKS = SHARED.stream, SHARED.chunks
ERASED_BY = "erased: "


async def fetch_content(js: JetStreamContext, tenant: str, content: Content) -> bytes:
    """The bytes whose SHA-256 is `content.sha256`.

    Raises `ContentErased` when they were erased, `ContentError` when they are missing or others.
    """
    return await ContentReader(js).read(tenant, content.sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the store says of a content, at `seq` of its stream. `nuid`: where its chunks stand, or stood.

    `erased`: it was deleted and must not come back; `erasure`: by which demand, where that is known.
    """

    seq: int
    nuid: str
    size_bytes: int
    erased: bool = False
    erasure: str | None = None


class ContentReader:
    """Objects are named `<tenant>/<sha256>`. nats-py's own reading makes a consumer for each, and waits for ever where
    chunks are missing.

    `direct`: asks whoever holds a replica, not the stream's leader by JetStream's API, which gives no answers while the
    cluster has no quorum. Right for a bucket of one replica, and for clients that parse headers.
    """

    def __init__(self, js: JetStreamContext, bucket: Bucket = SHARED, *, direct: bool = False) -> None:
        self._js = js
        self._bucket = bucket
        self._direct = direct

    async def look_up(self, tenant: str, sha256: str) -> Held | None:
        """None where the store has never heard of it. Raises `ContentError` where what it says cannot be read."""
        try:
            found = await self._js.get_last_msg(
                self._bucket.stream, meta_subject(tenant, sha256, self._bucket), direct=self._direct
            )
        except NotFoundError:
            return None
        try:
            said = orjson.loads(found.data or b"")
            description = str(said.get("description") or "")
            return Held(
                seq=found.seq or 0,
                nuid=str(said["nuid"]),
                size_bytes=int(said.get("size") or 0),
                erased=bool(said.get("deleted")),
                erasure=description.removeprefix(ERASED_BY) if description.startswith(ERASED_BY) else None,
            )
        except (ValueError, KeyError, AttributeError, TypeError):
            raise ContentError(f"content {tenant}/{sha256}: what the store says of it cannot be read") from None

    async def read(self, tenant: str, sha256: str, held: Held | None = None) -> bytes:
        """Raises `ContentErased`, `ContentError`."""
        name = f"{tenant}/{sha256}"
        held = held or await self.look_up(tenant, sha256)
        if held is None:
            raise ContentError(f"content {name} is not in the store: it is still in its spool, or was lost with it")
        if held.erased:
            by = f"by erasure {held.erasure}" if held.erasure else "on demand"
            raise ContentErased(f"content {name} was erased {by}: it cannot be had any more")
        body = b"".join([chunk.data or b"" async for chunk in self.messages(self._bucket.chunks + held.nuid)])
        if hashlib.sha256(body).hexdigest() == sha256:
            return body
        now = await self.look_up(tenant, sha256)
        if now is not None and now != held:
            return await self.read(tenant, sha256, now)  # erased while it was read
        raise ContentError(f"content {name} does not match its digest: the store holds other bytes; do not use them")

    async def names(self, tenant: str) -> list[str]:
        """SHA-256 of every content of this tenant that is there; looks at what describes each, of every tenant."""
        prefix, found = f"{tenant}/", []
        async for message in self.messages(f"{self._bucket.metas}>"):
            said = orjson.loads(message.data or b"{}")
            if str(said.get("name", "")).startswith(prefix) and not said.get("deleted"):
                found.append(str(said["name"]).removeprefix(prefix))
        return found

    async def messages(self, subject: str) -> AsyncIterator[RawStreamMsg]:
        """Every message of the store's stream on that subject, which may have wildcards."""
        seq = 0
        while True:
            try:
                found = await self._js.get_msg(
                    self._bucket.stream, seq + 1, subject=subject, next=True, direct=self._direct
                )
            except NotFoundError:
                return
            yield found
            seq = found.seq or 0


def meta_subject(tenant: str, sha256: str, bucket: Bucket = SHARED) -> str:
    """Where what describes an object stands; the object store's own encoding (ADR-20)."""
    return bucket.metas + urlsafe_b64encode(f"{tenant}/{sha256}".encode()).decode()
