"""An archiver to be killed: seals small segments, as fast as it can."""

import asyncio
import sys
from pathlib import Path

from relight.engine.archive.archiver import Archiver
from relight.engine.archive.hand import SealLimits
from relight.engine.archive.keys import kept_key
from relight.engine.archive.store import FolderStore
from relight.engine.clock import Clock
from relight.engine.log.topology import Headers, connect

nats_url, folder = sys.argv[1:]


async def main() -> None:
    client = await connect(nats_url, name="archiver to be killed", headers=Headers.MESSAGE_ID)
    key = kept_key(Path(folder).parent / "key.pem")
    limits = SealLimits(events=20, seal_s=0.05)
    await Archiver(client, FolderStore(Path(folder)), lambda: key, limits=limits, clock=Clock()).run()


asyncio.run(main())
