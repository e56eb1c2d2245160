"""What the servers of a topology say of themselves at their monitoring addresses."""

import asyncio
from dataclasses import dataclass

from relight.engine.log.copies import Copy, copy_of
from relight.engine.proving.models import ServerFacts
from relight.engine.proving.monitors import varz


@dataclass(frozen=True, kw_only=True)
class SeenServer:
    """`tag` is the one that it should have; `copy` is its own of the stream, None where it has none."""

    name: str
    region: str
    tag: str
    answers: bool
    tags: tuple[str, ...] = ()
    sync_always: bool = False
    copy: Copy | None = None


@dataclass(frozen=True, kw_only=True)
class Monitored:
    """Where a server is asked."""

    name: str
    region: str
    tag: str
    url: str


async def seen(server: Monitored) -> SeenServer:
    """Within a few seconds, whatever hangs."""
    said, copy = await asyncio.gather(asyncio.to_thread(varz, server.url), asyncio.to_thread(copy_of, server.url))
    if isinstance(said, str):
        return SeenServer(name=server.name, region=server.region, tag=server.tag, answers=False)
    tags = said.get("tags")
    return SeenServer(
        name=server.name,
        region=server.region,
        tag=server.tag,
        answers=True,
        tags=tuple(str(tag) for tag in tags) if isinstance(tags, list) else (),
        sync_always=ServerFacts.of(said).sync_always,
        copy=copy,
    )
