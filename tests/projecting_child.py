"""A projector to be killed or frozen: folds in small batches until then, and says what it is doing."""

import asyncio
import sys

from relight.engine.log.topology import connect
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.projector import Projector

nats_url, database_url, batch_events = sys.argv[1:]


async def main() -> None:
    client = await connect(nats_url, name="projector to be killed")
    session = lambda: connect_session(database_url, role="relight_projector", idle_in_transaction_s=2)  # noqa: E731
    projector = Projector(client, session, batch_events=int(batch_events))
    projecting = asyncio.create_task(projector.run())
    said = None
    while not projecting.done():
        if projector.state is not said:
            said = projector.state
            print(said, flush=True)
        await asyncio.sleep(0.01)


asyncio.run(main())
