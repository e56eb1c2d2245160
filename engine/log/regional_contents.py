"""Contents in the regions' own buckets: read where the shared one has none, and erased with it."""

from collections.abc import Iterable
from dataclasses import dataclass

from nats.aio.client import Client
from nats.js import JetStreamContext

from relight.engine.errors import ContentError
from relight.engine.log.buckets import Bucket, regional_buckets
from relight.engine.log.content import ContentReader
from relight.engine.log.content_store import ContentStore
from relight.engine.log.reader import TRANSIENT


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionalErased:
    """How many copies and bytes were deleted; `away`: regions whose own bucket could not be reached."""

    copies: int = 0
    bytes: int = 0
    away: tuple[str, ...] = ()


async def read_elsewhere(
    js: JetStreamContext, tenant: str, sha256: str, *, but: Bucket | None = None, direct: bool = False
) -> tuple[bytes, Bucket] | None:
    """A copy that matches its digest, of any region's own bucket `but` that one; None where none can be had now."""
    for bucket in await regional_buckets(js):
        if bucket == but:
            continue
        try:
            return await ContentReader(js, bucket, direct=direct).read(tenant, sha256), bucket
        except (ContentError, *TRANSIENT):
            continue
    return None


async def erase_regional(
    client: Client, js: JetStreamContext, erased: Iterable[tuple[str, str, str]]
) -> RegionalErased:
    """Of these (tenant, SHA-256, erasure) every copy that a region holds by itself.

    They are marked in the shared bucket before: whoever copies one now looks there again after he did. Where a region
    is away, the others are done first.
    """
    wanted = list(erased)
    copies = deleted_bytes = 0
    away: list[str] = []
    for bucket in await regional_buckets(js):
        store = ContentStore(client, bucket)
        try:
            for tenant, sha256, erasure in wanted:
                if (held := await store.reader.look_up(tenant, sha256)) is None:
                    continue
                copies += not held.erased
                deleted_bytes += await store.erase(tenant, sha256, erasure)
        except TRANSIENT:
            assert bucket.region is not None
            away.append(bucket.region)
    return RegionalErased(copies=copies, bytes=deleted_bytes, away=tuple(away))


async def regional_names(js: JetStreamContext, tenant: str) -> set[str]:
    """SHA-256 of every content of the tenant in the regions' own buckets, those that can be reached."""
    found: set[str] = set()
    for bucket in await regional_buckets(js):
        try:
            found |= set(await ContentReader(js, bucket).names(tenant))
        except TRANSIENT:  # told by `erase_regional`
            continue
    return found
