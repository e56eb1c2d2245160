"""A rebuild of all projections by several processes, to be killed; says how far it is."""

import asyncio
import sys
from functools import partial

from relight.engine.clock import Clock
from relight.engine.log.topology import Headers, connect
from relight.engine.tables import rebuild, refolding
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.rebuild import Rebuild
from relight.projections.catalog import projections

nats_url, database_url, batch_events = sys.argv[1:]
refolding.BATCH_EVENTS = int(batch_events)
rebuild.WORTH_WORKERS = 0
rebuild.how_many = lambda: 2


async def main() -> None:
    client = await connect(nats_url, name="rebuild to be killed", headers=Headers.NONE)
    session = partial(connect_session, database_url, role="relight_projector", name="rebuild to be killed")
    told = lambda seq, end: print(seq, end, flush=True)  # noqa: E731
    keeper, builder = await session(), await session()
    await Rebuild(client, keeper, builder, projections(), clock=Clock(), connect=session, advanced=told).run()


if __name__ == "__main__":  # and not in the processes that it starts
    asyncio.run(main())
