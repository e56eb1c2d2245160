"""Takes the stream's leadership out of a region that traffic leaves, so that writes do not have to go there."""

import asyncio
from collections.abc import Callable

import orjson
from nats.aio.client import Client
from nats.js.errors import APIError, ServiceUnavailableError

from relight.engine.errors import Unreachable
from relight.engine.log.answers import answered
from relight.engine.log.topology import REQUEST_TIMEOUT_S, STREAM
from relight.engine.recorder.recorder import Recorder
from relight.events.failover import StandIn

STEP_DOWN = f"$JS.API.STREAM.LEADER.STEPDOWN.{STREAM}"
TRIES = 5
ELECTED_S = 5.0
LOOK_EVERY_S = 0.05


def region_of_server(name: str) -> str:
    """Servers of a topology are named after their regions."""
    return name


class Leadership:
    """Call it with a failover: afterwards the stream is not led from its source. Raises `Unreachable`."""

    def __init__(self, recorder: Recorder, region_of: Callable[[str], str] = region_of_server) -> None:
        self._recorder = recorder
        self._region_of = region_of

    async def __call__(self, one: StandIn) -> None:
        client = await self._recorder.client()
        for attempt in range(TRIES):
            leader = await _leader(client)
            if leader is None or self._region_of(leader) != one.source_region:
                return
            # To the target's server where it is named after it; where it cannot be that one, to any other.
            wanted = {} if attempt else {"placement": {"preferred": one.target_region}}
            await client.request(STEP_DOWN, orjson.dumps(wanted), timeout=REQUEST_TIMEOUT_S)
            await self._elected(client, other_than=leader)
        raise Unreachable(
            f"the stream is still led from {one.source_region} after {TRIES} requests to step down: are the servers of"
            " the other regions current? See `relight topology status`"
        )

    async def _elected(self, client: Client, *, other_than: str) -> None:
        """Returns at the latest after `ELECTED_S`: whoever leads then is looked for anew."""
        deadline = asyncio.get_running_loop().time() + ELECTED_S
        while asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                leader = await _leader(client)
            except (APIError, ServiceUnavailableError, TimeoutError):
                continue
            if leader not in (None, other_than):
                return


async def _leader(client: Client) -> str | None:
    """None: it stands alone, or nobody leads just now."""
    asking = client.jetstream(timeout=REQUEST_TIMEOUT_S).stream_info(STREAM)
    info = await answered(client, asking, within_s=REQUEST_TIMEOUT_S + 1)
    return info.cluster.leader if info.cluster else None
