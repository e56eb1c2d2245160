"""How the HTTP server listens."""

import asyncio
import socket

from relight.engine.http.server import _listening


async def test_an_answer_is_not_held_back_until_the_client_acknowledges_its_head() -> None:
    """Nagle's algorithm is off on what is accepted, though asyncio asks for the protocol before it turns it off."""
    found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    listener = _listening("127.0.0.1", 0)
    async with await asyncio.start_server(accepted, sock=listener):
        _, writer = await asyncio.open_connection(*listener.getsockname())
        assert await asyncio.wait_for(found, 10)
        writer.close()
