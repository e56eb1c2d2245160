"""Replicated is promised only with proof, and a duplicate acknowledgement is none."""

from pathlib import Path

import pytest
from nats.js.api import StorageType
from stack import connected, failed, nats_server, options

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.errors import AckNotProven
from relight.engine.log.publishing import publish_one, request
from relight.engine.log.topology import STREAM, connect, stream_config
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.spool.spool import Spooled


async def not_proven(nats: EmbeddedNats, spools: Path, **changes: object) -> str:
    async with Recorder(options(nats, spools, **changes)) as recorder:
        receipt = recorder.record(failed(1))
        with pytest.raises(AckNotProven) as refused:
            await receipt.reached(Ack.REPLICATED)
        return str(refused.value)


async def test_replicated_is_not_promised_by_a_server_that_acknowledges_before_it_fsyncs(spools: Path) -> None:
    async with nats_server(sync_always=False) as nats:
        assert "sync_interval: always" in await not_proven(nats, spools)


async def test_replicated_is_not_promised_where_nobody_can_be_asked(spools: Path) -> None:
    async with nats_server() as nats:
        assert "RELIGHT_NATS_MONITOR_URLS" in await not_proven(nats, spools, nats_monitor_urls=())
        assert "does not answer" in await not_proven(nats, spools, nats_monitor_urls=("http://127.0.0.1:1",))


async def test_replicated_is_not_promised_by_a_stream_in_memory(spools: Path) -> None:
    async with nats_server() as nats:
        client = await connect(nats.url, name="test")
        config = stream_config()
        config.storage = StorageType.MEMORY
        await client.jetstream().add_stream(config=config)
        await client.close()
        assert "not in files" in await not_proven(nats, spools)


async def test_a_duplicate_acknowledgement_of_what_was_purged_is_not_believed() -> None:
    async with nats_server() as nats, connected(nats) as client:
        js = client.jetstream()
        event = Spooled(1, "0190-1", "ev.eu.breakers.acme.failed", b'{"n":1}', "0" * 64, 0)
        first = await publish_one(client, js, event)
        assert await publish_one(client, js, event) == first
        await js.purge_stream(STREAM)
        headers = {"Nats-Msg-Id": event.id}
        assert (await request(client, event.subject, event.body, headers))[1], "this server does not lie any more"
        again = await publish_one(client, js, event)
        assert again > first
        assert (await js.get_msg(STREAM, again)).data == event.body
