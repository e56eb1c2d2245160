"""A rebuild of all projections, to be killed; says when it begins to fold."""

import asyncio
import sys

from relight.engine.clock import Clock
from relight.engine.log.topology import connect
from relight.engine.tables import refolding
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.rebuild import Rebuild
from relight.projections.catalog import projections

nats_url, database_url, batch_events = sys.argv[1:]
refolding.BATCH_EVENTS = int(batch_events)


async def main() -> None:
    client = await connect(nats_url, name="rebuild to be killed", bodies_only=True)
    keeper, builder = [
        await connect_session(database_url, role="relight_projector", name="rebuild to be killed") for _ in range(2)
    ]
    told = lambda seq, end: print(seq, end, flush=True)  # noqa: E731
    await Rebuild(client, keeper, builder, projections(), clock=Clock(), advanced=told).run()


asyncio.run(main())
