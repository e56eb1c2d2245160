"""Answers for a folder of spools which publishers' lie there, and how much of each the stream has."""

import asyncio
import logging
from collections.abc import Collection
from pathlib import Path

from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import BaseModel, ConfigDict, ValidationError

from relight.engine.errors import SpoolUnusable
from relight.engine.log.reader import TRANSIENT
from relight.engine.spool.aside import ASIDE, Note, asides
from relight.engine.spool.spool import Spool

ASKED = "spools"
MAX_PUBLISHERS = 10_000

log = logging.getLogger(__name__)


class SpoolsAsked(BaseModel):
    """Whose spools are looked for."""

    model_config = ConfigDict(frozen=True)

    publishers: tuple[str, ...]


class Lies(BaseModel):
    """A spool that is there, with numbers up to `spooled`; `drained`: the stream has acknowledged all of it.

    `damaged`: it was put aside, and what it held is not known for certain.
    """

    model_config = ConfigDict(frozen=True)

    spooled: int
    drained: bool
    damaged: bool = False


class SpoolsHeld(BaseModel):
    """What lies in one place, of those that were asked for."""

    model_config = ConfigDict(frozen=True)

    place: str
    region: str
    spools: dict[str, Lies]
    unread: bool = False
    """Something lies there that cannot be read now: it might be one of them."""


async def answer_of_spools(client: Client, folder: Path | None, place: str | None, region: str) -> None:
    """For ever; of all processes of one place, one answers."""
    if folder is None or place is None:
        await asyncio.Event().wait()
        return

    async def answer(message: Msg) -> None:
        try:
            asked = SpoolsAsked.model_validate_json(message.data)
            spools, unread = await asyncio.to_thread(lying, folder, set(asked.publishers[:MAX_PUBLISHERS]))
            held = SpoolsHeld(place=place, region=region, spools=spools, unread=unread)
            await message.respond(held.model_dump_json().encode())
        except (ValidationError, OSError, *TRANSIENT) as error:
            log.info("a question for spools is not answered: %r", error, extra={"action": "spools_untold"})

    await client.subscribe(ASKED, queue=place, cb=answer)
    await asyncio.Event().wait()


def lying(folder: Path, publishers: Collection[str]) -> tuple[dict[str, Lies], bool]:
    """Of these publishers, what lies here; and whether there is something that cannot be read. Raises `OSError`."""
    found: dict[str, Lies] = {}
    unread = False
    for path in sorted(folder.glob("*.db")) if folder.is_dir() else ():
        if path.name.startswith(ASIDE):
            continue
        try:
            spool = Spool(path, read_only=True)
            try:
                publisher, head = spool.meta("publisher"), spool.head()[0]
                lies = Lies(spooled=head, drained=spool.acked_pseq() >= head)
            finally:
                spool.close()
        except SpoolUnusable:
            unread = True
            continue
        if publisher is not None and publisher in publishers:
            found[publisher] = both(found.get(publisher), lies)
    for path in asides(folder) if folder.is_dir() else ():
        publisher = Note.of(path).publisher
        if publisher is None:
            unread = True
        elif publisher in publishers:
            found[publisher] = both(found.get(publisher), Lies(spooled=0, drained=False, damaged=True))
    return found, unread


def both(one: Lies | None, other: Lies) -> Lies:
    """Of two spools of one publisher, as a copy that was adopted is one."""
    if one is None:
        return other
    return Lies(
        spooled=max(one.spooled, other.spooled),
        drained=one.drained and other.drained,
        damaged=one.damaged or other.damaged,
    )
