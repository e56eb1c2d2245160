"""A TCP proxy on loopback that can swallow what the server answers, as a network does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Proxy:
    """`deaf`: the server's bytes are dropped from now on, and its connections cut when that ends.

    `hang`: the connections that there are stay open and carry nothing any more, in either direction, as when the other
    end's machine is gone; new ones work. `stall`: they are not even read from, until `go_on`.
    """

    url: str = ""
    deaf: bool = False
    swallowed_bytes: int = 0
    asked: int = 0
    """Pieces that clients sent; of one that waits for each answer, its round trips."""
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    hanging: set[asyncio.StreamWriter] = field(default_factory=set)
    stalled: set[asyncio.StreamWriter] = field(default_factory=set)

    def stall(self) -> None:
        self.stalled |= self.writers

    def go_on(self) -> None:
        """With all that was sent meanwhile."""
        self.stalled.clear()

    def hang(self) -> None:
        self.hanging |= self.writers

    def cut(self) -> None:
        """Ends every connection; clients make new ones."""
        for writer in list(self.writers):
            writer.transport.abort()


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    parts = urlsplit(url)
    proxy = Proxy()
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        try:
            while data := await reader.read(65_536):
                while writer in proxy.stalled:
                    await asyncio.sleep(0.01)
                if (answers and proxy.deaf) or writer in proxy.hanging:
                    proxy.swallowed_bytes += len(data)
                    continue
                proxy.asked += not answers
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()
            proxy.writers.discard(writer)
            proxy.hanging.discard(writer)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection(parts.hostname, parts.port)
        except OSError:
            writer.transport.abort()
            return
        proxy.writers |= {writer, up_writer}
        for pumping in (pump(reader, up_writer, answers=False), pump(up_reader, writer, answers=True)):
            task = asyncio.create_task(pumping)
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    proxy.url = url.replace(f"{parts.hostname}:{parts.port}", f"{host}:{port}")
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
