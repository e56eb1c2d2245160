"""A NATS client that comes back from what leaves nats-py's own deaf: late answers, half a reconnection, a full socket.

Should nats-py rename the methods, only these mends go.
"""

import asyncio
from contextlib import suppress
from typing import Any

from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.errors import Error

CLOSING_S = 2.0
"""So long a client that is closed may go on sending."""


class SteadyClient(Client):
    """Whatever happens to its connection, it ends up connected again, or closed."""

    async def _process_pong(self) -> None:
        """A ping that somebody gave up waiting for is answered, too: nats-py would read no more after that."""
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def _connect_to_server(self, s: Any) -> None:
        """Ends what the attempt before has left: its reader would take the next connection's answers.

        Half a message that it read would be taken for the beginning of them, too.
        """
        tasks = (self._reading_task, self._ping_interval_task, self._flusher_task)
        if left := [task for task in tasks if task is not None and not task.done()]:
            self._abort()
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=CLOSING_S)
        self._ps.reset()
        await super()._connect_to_server(s)

    async def _process_connect_init(self) -> None:
        """Raises `Error` where the server's answer was another than nats-py waits for: it would stay half connected."""
        await super()._process_connect_init()
        if not self.is_connected:
            raise Error("the server did not answer the first ping")

    async def _attempt_reconnect(self) -> None:
        """Until it is connected: nats-py gives up, without a word, for an error that it does not know.

        The lost connection goes at once: where its socket is full, nats-py would wait for a peer that is gone.
        """
        while True:
            self._abort()
            try:
                await super()._attempt_reconnect()
                return
            except asyncio.InvalidStateError:
                return  # its last line's, where another attempt has taken its place
            except Exception as error:
                if self.is_closed:
                    return
                await self._error_cb(error)
                self._status = Client.RECONNECTING
            await asyncio.sleep(self.options["reconnect_time_wait"])

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        abort = asyncio.get_running_loop().call_later(CLOSING_S, self._abort)
        try:
            await super()._close(status, do_cbs)
        finally:
            abort.cancel()

    def _abort(self) -> None:
        transport = self._transport
        if isinstance(transport, TcpTransport) and transport._io_writer is not None:
            with suppress(RuntimeError):  # uvloop's, of one that is closed
                transport._io_writer.transport.abort()
