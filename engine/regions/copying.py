"""Copies one snapshot into a region's own bucket, and reads it back there."""

from dataclasses import dataclass
from typing import NamedTuple

from nats.aio.client import Client

from relight.engine.archive.at_once import Room
from relight.engine.errors import ContentErased, ContentError
from relight.engine.log.buckets import SHARED, regional_bucket
from relight.engine.log.content import ContentReader, Held
from relight.engine.log.content_store import ContentStore
from relight.engine.log.regional_contents import read_elsewhere
from relight.engine.log.topology import REQUEST_TIMEOUT_S
from relight.events.values import Content

MAX_BYTES_AT_ONCE = 64 << 20
UNKNOWN_ERASURE = "unknown"


class _Body(NamedTuple):
    tenant: str
    sha256: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """`copied`: it was not there before; `source`: of which bucket it was read."""

    copied: bool
    source: str | None = None


class Copying:
    """Between the buckets of one client's cluster, into that of one region; `tagged`: see `declare_bucket`."""

    def __init__(self, client: Client, region: str, *, tagged: bool = True) -> None:
        self._js = client.jetstream(timeout=REQUEST_TIMEOUT_S)
        self._shared = ContentReader(self._js)
        self._own = ContentStore(client, regional_bucket(region), tagged=tagged, direct=True)
        self._room = Room(MAX_BYTES_AT_ONCE)

    async def declare(self) -> None:
        """Makes the region's bucket where it is not. Raises `Unreachable`."""
        await self._own.declare()

    async def subjects(self) -> frozenset[str]:
        """Where contents are described that the bucket holds, as far as the server says at once."""
        info = await self._js.stream_info(self._own.bucket.stream, subjects_filter=f"{self._own.bucket.metas}>")
        return frozenset(info.state.subjects or {})

    async def held(self, tenant: str, content: Content) -> Held | None:
        """What the region's bucket says of it."""
        return await self._own.reader.look_up(tenant, content.sha256)

    async def copy(self, tenant: str, content: Content) -> Copied:
        """Once it returns, the region's own copy was read back and is what its digest says.

        Raises `ContentErased`, and has seen to it that the region knows; `ContentError` where no bucket has it, or what
        was read back is other bytes: they are taken away.
        """
        async with self._room.taken(content.size_bytes):
            source = None
            if await self.held(tenant, content) is None:
                source = await self._fill(tenant, content)
            try:
                await self._own.reader.read(tenant, content.sha256)
            except ContentErased:
                raise
            except ContentError:
                await self._own.discard(tenant, content.sha256)
                raise
        # Marked while it was copied: the erasure may have looked for this bucket before it was there.
        await self._unless_erased(tenant, content, await self._shared.look_up(tenant, content.sha256))
        return Copied(copied=source is not None, source=source)

    async def _fill(self, tenant: str, content: Content) -> str:
        """The bucket that it was read of."""
        found = await self._shared.look_up(tenant, content.sha256)
        await self._unless_erased(tenant, content, found)
        try:
            body, source = await self._shared.read(tenant, content.sha256, found), SHARED.name
        except ContentErased:
            raise
        except ContentError as error:
            body, source = await self._elsewhere(tenant, content, error)
        await self._own.put([_Body(tenant, content.sha256, body)])
        return source

    async def _unless_erased(self, tenant: str, content: Content, found: Held | None) -> None:
        """What was erased must not stay in the region, either. Raises `ContentErased`."""
        if found is not None and found.erased:
            await self._own.erase(tenant, content.sha256, found.erasure or UNKNOWN_ERASURE)
            raise ContentErased(f"content {tenant}/{content.sha256} was erased: it is not copied")

    async def _elsewhere(self, tenant: str, content: Content, failure: ContentError) -> tuple[bytes, str]:
        """Another region's copy, where the shared bucket has none. Raises `failure` where nobody has."""
        found = await read_elsewhere(self._js, tenant, content.sha256, but=self._own.bucket, direct=True)
        if found is None:
            raise failure
        return found[0], found[1].name
