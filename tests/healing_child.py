"""A healer to be killed: one round from an archive."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from relight.engine.archive.folder import FolderStore
from relight.engine.healing.watching import Healing, healer, one_round
from relight.engine.log.topology import Headers, connect
from relight.engine.tables.connecting import connect_session
from relight.events.base import Event

nats_url, database, archive = sys.argv[1:]


async def say(events: Sequence[Event]) -> None:
    raise AssertionError("it is killed before it can say so")


async def main() -> None:
    healing = Healing(
        open_client=lambda: connect(nats_url, name="healer to be killed", headers=Headers.MESSAGE_ID),
        open_session=lambda: connect_session(database, role="relight_projector"),
        say=say,
        store=FolderStore(Path(archive)),
    )
    async with healer(healing) as (mender, session), one_round(session):
        await mender.heal_all()


asyncio.run(main())
