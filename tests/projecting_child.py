"""A projector to be killed: folds in small batches until then."""

import asyncio
import sys

from relight.engine.log.topology import connect
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.projector import Projector

nats_url, database_url, batch_events = sys.argv[1:]


async def main() -> None:
    client = await connect(nats_url, name="projector to be killed")
    session = lambda: connect_session(database_url, role="relight_projector")  # noqa: E731
    await Projector(client, session, batch_events=int(batch_events)).run()


asyncio.run(main())
