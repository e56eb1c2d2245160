"""Tells that spools of this folder are there and acknowledged to their end: whoever wrote them, no tail is in doubt."""

import asyncio
import logging
from pathlib import Path

import orjson
from nats.aio.client import Client
from nats.errors import Error as NatsError

from relight.engine.errors import SpoolUnusable
from relight.engine.log.watermarks import QUESTION
from relight.engine.spool.spool import Spool

EVERY_S = 60.0

log = logging.getLogger(__name__)


async def tell_of_spools(client: Client, folder: Path | None) -> None:
    """For ever. A live recorder tells of itself whenever it asks; this is for those of processes that were killed."""
    while True:
        try:
            for publisher in await asyncio.to_thread(whole_spools, folder) if folder is not None else ():
                await client.publish(QUESTION, orjson.dumps({"publisher": publisher, "pseq": 0}))
        except (NatsError, OSError) as error:
            log.info("spools are not told of yet: %r", error, extra={"action": "spools_untold"})
        await asyncio.sleep(EVERY_S)


def whole_spools(folder: Path) -> list[str]:
    """Publishers of which everything that lies here is acknowledged."""
    found = []
    for path in sorted(folder.glob("*.db")):
        try:
            spool = Spool(path, read_only=True)
        except SpoolUnusable:
            continue  # `relight status` shows it
        try:
            publisher = spool.meta("publisher")
            if publisher is not None and spool.acked_pseq() >= spool.head()[0] > 0:
                found.append(publisher)
        except SpoolUnusable:
            continue
        finally:
            spool.close()
    return found
