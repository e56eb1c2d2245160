"""A projector as a process: `projector_process.py NATS_URL DATABASE_URL`, until it is terminated."""

import asyncio
import signal
import sys
from contextlib import suppress

from relight.engine.log.topology import Headers, connect
from relight.engine.service import PROJECTOR_ROLE
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.projector import Projector, ProjectorState


async def main(nats_url: str, database_url: str) -> None:
    client = await connect(nats_url, name="relight bench projector", headers=Headers.NONE)
    projector = Projector(client, lambda: connect_session(database_url, role=PROJECTOR_ROLE))
    running = asyncio.create_task(projector.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    while projector.state is not ProjectorState.LIVE:
        await asyncio.sleep(0.01)
    print("live", flush=True)
    with suppress(asyncio.CancelledError):
        await running
    await client.close()


asyncio.run(main(*sys.argv[1:]))
