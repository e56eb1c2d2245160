"""Reading the stream: what a client for it leaves out, and what it must not."""

import pytest
from nats.errors import NoRespondersError
from stack import nats_server

from relight.engine.log.topology import Headers, connect


async def test_a_client_for_reading_leaves_headers_unparsed_but_hears_the_servers_status() -> None:
    async with nats_server() as nats:
        client = await connect(nats.url, name="test", headers=Headers.NONE)
        try:
            subscription = await client.subscribe("greetings")
            await client.publish("greetings", b"hello", headers={"Content-Type": "text/plain"})
            message = await subscription.next_msg(timeout=5)
            assert (message.data, message.headers) == (b"hello", None)
            with pytest.raises(NoRespondersError):
                await client.request("nobody.is.here", b"", timeout=5)
        finally:
            await client.close()
