"""Drains spools that processes left behind when they died; their identity is not written to."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from nats.aio.client import Client

from relight.engine.clock import Clock
from relight.engine.errors import SpoolUnusable
from relight.engine.log.watermarks import ProjectedWatermarks
from relight.engine.recorder.drainer import Drainer
from relight.engine.recorder.receipts import Watermark
from relight.engine.spool.orphans import next_orphan, put_aside_orphan, salvage_all
from relight.engine.spool.slots import Slot
from relight.engine.spool.spool import Acked, Spooled, SpooledContent

ORPHANS_EVERY_S = 60.0

T = TypeVar("T")

log = logging.getLogger(__name__)


class Adopter:
    """With one NATS client."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self.watermarks = ProjectedWatermarks(client)
        self.on_drained: Callable[[Slot], Awaitable[None]] | None = None
        """Told of each spool of which all was taken."""
        self._client = client
        self._clock = clock

    async def drain_orphans(self, folder: Path | None) -> None:
        """For ever: spools that processes left behind when they died, and what could be read of damaged ones."""
        while True:
            if folder is not None:
                try:
                    await drain_left(self, folder)
                except Exception as error:  # others' spools must not keep this one from being drained
                    exiting = isinstance(error, RuntimeError)  # no thread can be begun any more
                    level = logging.INFO if exiting else logging.WARNING
                    log.log(level, "left spools cannot be drained: %r", error, extra={"action": "orphans_failed"})
            await asyncio.sleep(ORPHANS_EVERY_S)

    async def drain(self, slot: Slot, *, advanced: Callable[[int], None] = lambda events: None) -> bool:
        """One spool of a dead process, whose identity is not written to; whether all of it was taken.

        What could not be noted of acknowledgements is, at least, not sent again by us.
        """
        unnoted: list[Acked] = []

        def on_ack(acked: Acked, events: Sequence[Spooled]) -> None:
            advanced(len(events))
            unnoted.append(acked)
            try:
                slot.spool.commit([], acks=unnoted)
                unnoted.clear()
            except SpoolUnusable as error:
                log.warning("acknowledgements cannot be noted: %s", error, extra={"action": "ack_unnoted"})

        async def on_content(contents: Sequence[SpooledContent]) -> None:
            slot.spool.content_stored([(content.tenant, content.sha256) for content in contents])

        drainer = Drainer(
            self._client,
            slot.spool,
            acked=Watermark(slot.spool.acked_pseq()),
            on_ack=on_ack,
            on_content=on_content,
            clock=self._clock,
        )
        await drainer.run(until_empty=True)
        if drainer.damage is not None:
            slot.spool.close()
            put_aside_orphan(slot.spool.path, drainer.damage)
            return False
        log.info("drained the spool of %s", slot.publisher, extra={"action": "orphan_drained"})
        if self.on_drained is not None and not unnoted:
            await self.on_drained(slot)
        return not unnoted


async def drain_left(
    adopter: Adopter,
    folder: Path,
    *,
    advanced: Callable[[int], None] = lambda events: None,
) -> None:
    """Salvages what was put aside and drains every spool that no live process holds, once."""
    seen: set[Path] = set()
    while True:
        slot = await in_thread(next_orphan, folder, frozenset(seen), release=_close)
        if slot is None:
            if await in_thread(salvage_all, folder):  # what was put aside before, and just now
                continue
            return
        seen.add(slot.spool.path)
        try:
            await adopter.drain(slot, advanced=advanced)
        finally:
            slot.close()


def _close(slot: Slot | None) -> None:
    if slot is not None:
        slot.close()


async def in_thread(
    work: Callable[..., T], *arguments: object, release: Callable[[T], None] = lambda result: None
) -> T:
    """Disks may be slow, and the loop has others to serve. Who is cancelled meanwhile still has the result released."""
    working = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        working.add_done_callback(lambda done: release(done.result()) if _has_result(done) else None)
        raise


def _has_result(done: "asyncio.Future[T]") -> bool:
    return not done.cancelled() and done.exception() is None
