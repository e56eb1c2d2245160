"""A process of a drill's load, started as `python -m relight.engine.app.drill_agents`, its orders as an argument."""

import asyncio
import sys

from relight.engine.drill.load import TENANT, Orders, act
from relight.engine.recorder.recorder import Recorder, RecorderOptions
from relight.events.catalog import prepare


async def _main(orders: Orders) -> None:
    options = RecorderOptions(
        nats_url=orders.nats_url, region=orders.region, tenant=TENANT, spools=orders.spools, proof_ttl_s=60
    )
    async with Recorder(options) as recorder:
        await act(recorder, orders)


if __name__ == "__main__":
    prepare()
    asyncio.run(_main(Orders.model_validate_json(sys.argv[1])))
