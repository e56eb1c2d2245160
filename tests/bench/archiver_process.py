"""An archiver as a process: `archiver_process.py NATS_URL DATABASE_URL FOLDER`, until it is terminated."""

import asyncio
import signal
import sys
from pathlib import Path

from relight.engine.archive.archiver import Archiver
from relight.engine.archive.hand import SealLimits
from relight.engine.archive.keys import kept_key
from relight.engine.archive.look import ArchiverState
from relight.engine.archive.store import FolderStore
from relight.engine.clock import Clock
from relight.engine.log.topology import Headers, connect
from relight.engine.service import PROJECTOR_ROLE
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.sealed import SealedTables


async def main(nats_url: str, database_url: str, folder: str) -> None:
    client = await connect(nats_url, name="relight bench archiver", headers=Headers.MESSAGE_ID)
    archiver = Archiver(
        client,
        FolderStore(Path(folder)),
        lambda: kept_key(Path(folder).with_suffix(".pem")),
        limits=SealLimits(events=2_000),
        clock=Clock(),
        tables=SealedTables(lambda: connect_session(database_url, role=PROJECTOR_ROLE)),
    )
    running = asyncio.create_task(archiver.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, archiver.stop)
    while archiver.seen().state is not ArchiverState.LIVE:
        await asyncio.sleep(0.01)
    print("live", flush=True)
    await running
    await client.close()


asyncio.run(main(*sys.argv[1:]))
