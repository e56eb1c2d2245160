"""One connection of the fake's: HTTP/1.1 by h11, and the ways in which a connection can end badly."""

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass

import h11

from relight.engine.fake.replies import Ending, Reply

READ_BYTES = 65_536
MAX_HEAD_BYTES = 65_536
LINGER_0 = struct.pack("ii", 1, 0)
"""on, for no seconds: closing sends RST and drops what is unsent"""


class HungUp(Exception):
    """The client went."""


@dataclass(frozen=True, slots=True)
class Received:
    method: str
    target: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


class Wire:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)

    async def receive(self) -> Received | None:
        """The next request; None when the client sends no more. Raises `HungUp`, and `h11.RemoteProtocolError`."""
        head: h11.Request | None = None
        body = bytearray()
        while True:
            match event := self._http.next_event():
                case h11.NEED_DATA:
                    if self._http.they_are_waiting_for_100_continue:
                        self._writer.write(
                            self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b""
                        )
                    data = await self._read()
                    if not data and head is not None:
                        raise HungUp
                    self._http.receive_data(data)
                case h11.Request():
                    head = event
                case h11.Data():
                    body += event.data
                case h11.EndOfMessage() if head is not None:
                    headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
                    return Received(head.method.decode(), head.target.decode(), headers, bytes(body))
                case _:
                    return None

    async def send(self, reply: Reply) -> bool:
        """Whether another request may follow. Raises `HungUp` when the client goes before all is sent."""
        sending = asyncio.ensure_future(self._send(reply))
        watching = asyncio.ensure_future(self._gone())
        try:
            await asyncio.wait([sending, watching], return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                raise HungUp
            await sending
        except OSError as error:
            raise HungUp from error
        finally:
            for task in (sending, watching):
                task.cancel()
            await asyncio.gather(sending, watching, return_exceptions=True)
        match reply.ending:
            case Ending.RESET:
                self.reset()
            case Ending.WHOLE if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
                self._http.start_next_cycle()
                return True
        return False

    def reset(self) -> None:
        sock: socket.socket | None = self._writer.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        self._writer.transport.abort()

    def close(self) -> None:
        self._writer.close()

    async def _send(self, reply: Reply) -> None:
        await asyncio.sleep(reply.delay_s)
        if reply.head:
            await self._head(reply)
            for pause_s, chunk in reply.chunks:
                if pause_s:
                    await asyncio.sleep(pause_s)
                await self._write(self._http.send(h11.Data(data=chunk)))
            if reply.ending is Ending.WHOLE:
                await self._write(self._http.send(h11.EndOfMessage()))
        if reply.ending is Ending.NEVER:
            await asyncio.Event().wait()

    async def _head(self, reply: Reply) -> None:
        framing = {"transfer-encoding": "chunked"} if reply.length is None else {"content-length": str(reply.length)}
        headers = [*reply.headers.items(), *framing.items()]
        head = self._http.send(h11.Response(status_code=reply.status, headers=headers)) or b""
        if not reply.head_byte_delay_s:
            await self._write(head)
            return
        for at in range(len(head)):
            await asyncio.sleep(reply.head_byte_delay_s)
            await self._write(head[at : at + 1])

    async def _write(self, data: bytes | None) -> None:
        if data:
            self._writer.write(data)
            await self._writer.drain()

    async def _read(self) -> bytes:
        try:
            return await self._reader.read(READ_BYTES)
        except OSError:
            return b""

    async def _gone(self) -> None:
        """Until the client closes; what it sends meanwhile is kept for the next request."""
        while data := await self._read():
            self._http.receive_data(data)
