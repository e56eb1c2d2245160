"""Serves `/health` on loopback: GET and HEAD; 200 when healthy or degraded, 503 when unhealthy."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson

from relight.engine.errors import SettingsError
from relight.engine.health import Health

ANSWER_TIMEOUT_S = 6.0


@contextmanager
def health_server(
    check: Callable[[], Awaitable[Health]], loop: asyncio.AbstractEventLoop, *, port: int
) -> Iterator[str]:
    """Yields its URL. Threads of its own answer, so that a busy loop gives a late answer rather than none."""

    class Handler(BaseHTTPRequestHandler):
        server_version = "relight"
        sys_version = ""
        timeout = 10

        def do_GET(self) -> None:
            status, body = self._answer()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

        def _answer(self) -> tuple[int, bytes]:
            if self.path.partition("?")[0] != "/health":
                return 404, orjson.dumps({"title": "there is only /health here", "status": 404})
            try:
                health = asyncio.run_coroutine_threadsafe(_awaited(check), loop).result(ANSWER_TIMEOUT_S)
            except Exception as error:  # whatever is wrong, the answer is that it is not well
                reason = f"health cannot be told: {str(error) or type(error).__name__}"
                return 503, orjson.dumps({"status": "unhealthy", "reasons": [reason]})
            return health.status.http_status, orjson.dumps(health.model_dump(mode="json"))

        def log_message(self, format: str, *args: object) -> None:
            """Probes come every few seconds; they are no news."""

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise SettingsError(
            f"port {port} of RELIGHT_HEALTH_PORT is taken ({error.strerror}): choose another"
        ) from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="relight-health", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/health"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(ANSWER_TIMEOUT_S)


async def _awaited(check: Callable[[], Awaitable[Health]]) -> Health:
    return await check()
