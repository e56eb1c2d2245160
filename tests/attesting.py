"""A prober at work as in the service, and agents that know nothing but their own login."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js.api import StreamConfig
from stack import failed

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.errors import AckNotProven
from relight.engine.log.topology import connect, stream_config
from relight.engine.proving.answering import answering
from relight.engine.proving.building import polling_prober
from relight.engine.proving.prober import Prober
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder, RecorderOptions
from relight.engine.servers import Servers

NAME = "relight:eu:here:1"


def servers(**addresses: Any) -> Servers:
    return Servers(**{"nats": None, "monitors": (), "database": None, "ours": False} | addresses)


def agent_of(url: str, spools: Path, **changes: Any) -> Recorder:
    """One that knows nothing but its own login."""
    given: dict[str, Any] = {"region": "eu", "tenant": "acme", "spools": spools, "ack_timeout_s": 20}
    return Recorder(RecorderOptions(nats_url=url, **given | changes))


@asynccontextmanager
async def proving(client: Client, ttl_s: float = 60, settle_s: float = 4, **addresses: Any) -> AsyncIterator[Prober]:
    """A prober at work, as in the service."""
    prober = polling_prober(client, servers(**addresses), ttl_s=ttl_s, name=NAME, settle_s=settle_s)
    assert prober is not None
    async with answering(client, prober):
        yield prober


async def refusal(recorder: Recorder, n: int = 1) -> str:
    with pytest.raises(AckNotProven) as refused:
        await recorder.record(failed(n)).reached(Ack.REPLICATED)
    return str(refused.value)


async def refused_by(nats: EmbeddedNats, spools: Path, config: StreamConfig | None = None, **addresses: Any) -> str:
    """What an agent is told whose stream is declared so, and whose prober asks there."""
    async with AsyncExitStack() as held:
        client = await connect(nats.url, name="test")
        held.push_async_callback(client.close)
        await client.jetstream().add_stream(config=config or stream_config())
        await held.enter_async_context(proving(client, settle_s=0.5, **addresses or {"system": nats.system_url}))
        return await refusal(await held.enter_async_context(agent_of(nats.agent_url, spools)))


async def is_refused(recorder: Recorder) -> bool:
    return not (await recorder.attestation()).proven


async def is_replicated(recorder: Recorder, n: int) -> bool:
    try:
        await recorder.record(failed(n)).reached(Ack.REPLICATED)
    except AckNotProven:
        return False
    return True
