"""Serves an ASGI application in this process's loop, and stops so that no request at hand is lost."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from fastapi import FastAPI

from relight.engine.errors import SettingsError
from relight.engine.http.protocol import bounded

BACKLOG = 2_048
KEEP_ALIVE_S = 30
POLL_S = 0.01


class HttpServer:
    """What `http_server` yields; `url` has no trailing slash."""

    def __init__(self, server: uvicorn.Server, serving: "asyncio.Task[None]", url: str) -> None:
        self._server = server
        self._serving = serving
        self.url = url

    async def stop(self) -> None:
        """Takes no new connection, finishes the requests at hand within the deadline. Idempotent."""
        self._server.should_exit = True
        await asyncio.wait([self._serving])


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs the loop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def http_server(
    app: FastAPI, *, host: str, port: int, drain_s: float, connections: int = 2_000, receive_s: float = 20
) -> AsyncIterator[HttpServer]:
    """Listens until the `with` ends. Raises `SettingsError` when the address is taken or not this machine's."""
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
        timeout_graceful_shutdown=max(1, round(drain_s)),
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
        await running.stop()
        listener.close()


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio looks at it for TCP_NODELAY
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        raise SettingsError(
            f"{host} port {port} cannot be listened on ({error.strerror or error}): choose another RELIGHT_HTTP_HOST or"
            " RELIGHT_HTTP_PORT"
        ) from error
    return listener
