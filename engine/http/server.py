"""Serves an ASGI application in this process's loop, and stops so that no request at hand is lost."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.types import ASGIApp

from relight.engine.errors import SettingsError
from relight.engine.http.protocol import bounded

BACKLOG = 2_048
KEEP_ALIVE_S = 30
POLL_S = 0.01
LINGER_S = 0.5
"""What a request that was cut off gets to end."""


class HttpServer:
    """What `http_server` yields; `url` has no trailing slash."""

    def __init__(self, server: "_Server", serving: "asyncio.Task[None]", url: str) -> None:
        self._server = server
        self._serving = serving
        self.url = url

    async def ended(self) -> None:
        """Waits until it serves no more; raises what ended it."""
        await asyncio.shield(self._serving)

    async def stop(self, *, within_s: float) -> int:
        """Takes no new connection and finishes the requests at hand; how many it had to cut off. Idempotent."""
        self._server.stop(within_s)
        await asyncio.wait([self._serving])
        return self._server.cut_off


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs the loop, and counts what it cuts off."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._deadline: float | None = None
        self.cut_off = 0

    def stop(self, within_s: float) -> None:
        deadline = asyncio.get_running_loop().time() + within_s
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()  # at once where it has nothing to answer, else after its answer
        while (state.connections or state.tasks) and not self._late(0):  # noqa: ASYNC110  # uvicorn tells nobody
            await asyncio.sleep(POLL_S)
        self.cut_off = len(state.tasks)
        for task in list(state.tasks):
            task.cancel()
        while state.tasks and not self._late(LINGER_S):  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        for connection in list(state.connections):
            if (transport := getattr(connection, "transport", None)) is not None:
                transport.abort()

    def _late(self, grace_s: float) -> bool:
        return self._deadline is None or asyncio.get_running_loop().time() >= self._deadline + grace_s


@asynccontextmanager
async def http_server(
    app: ASGIApp, *, host: str, port: int, connections: int = 2_000, receive_s: float = 20
) -> AsyncIterator[HttpServer]:
    """Listens until `stop`, or at the latest until the `with` ends, which cuts off whatever is still at hand.

    At most so many `connections`, each of which has `receive_s` for the head of a request.
    Raises `SettingsError` when the address is taken or not this machine's.
    """
    listener = _listening(host, port)
    address = listener.getsockname()
    config = uvicorn.Config(
        app,
        http=bounded(max_connections=connections, receive_s=receive_s),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    shown = f"[{address[0]}]" if ":" in address[0] else address[0]
    running = HttpServer(server, serving, f"http://{shown}:{address[1]}")
    try:
        while not server.started:
            if serving.done():
                serving.result()
            await asyncio.sleep(POLL_S)
        yield running
    finally:
        await running.stop(within_s=0)
        listener.close()


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Named, for only then does asyncio set TCP_NODELAY; without it every second answer waits 40 ms for an ACK.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        raise SettingsError(
            f"{host} port {port} cannot be listened on ({error.strerror or error}): choose another RELIGHT_HTTP_HOST or"
            " RELIGHT_HTTP_PORT"
        ) from error
    return listener
