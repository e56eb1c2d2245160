"""The fake's server: on loopback, as long as its `with` lasts."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Thread
from types import TracebackType

import h11

from relight.engine.errors import SettingsError
from relight.engine.fake.asked import Operation, asked
from relight.engine.fake.replies import Replies
from relight.engine.fake.script import Playable, chooser
from relight.engine.fake.seen import Seen
from relight.engine.fake.steps import Step
from relight.engine.fake.wire import HungUp, Received, Wire

HOST = "127.0.0.1"
BACKLOG = 1_024


class FakeAnthropic:
    """Speaks the Messages API on loopback and misbehaves as `script` says; without one it behaves.

    Each request of the API uses up a step; those for other paths get 404 and use up none. `requests` holds what was
    seen on the wire, in order. All of it may be used from other threads than that of the loop.
    `tokens_per_s` paces answers as a model's writing does. `ended` hears of each request when it is over; with
    `remembers=False` nothing else does, and `requests` stays empty.
    Raises `SettingsError` when the port is taken.
    """

    def __init__(
        self,
        script: Playable = (),
        *,
        port: int = 0,
        tokens_per_s: float | None = None,
        ended: Callable[[Seen], None] | None = None,
        remembers: bool = True,
    ) -> None:
        self._port = port
        self._ended = ended
        self._remembers = remembers
        self._replies = Replies(tokens_per_s)
        self._server: asyncio.Server | None = None
        self._connected: set[asyncio.Task[None]] = set()
        self.url = ""
        """Without a trailing slash; a client's `base_url`, or ANTHROPIC_BASE_URL."""
        self.requests: list[Seen] = []
        self.connections = 0
        """That were accepted; some may have brought no request."""
        self.play(script)

    def play(self, script: Playable) -> None:
        """Another script from the next request on, which is its first; forgets what was seen."""
        self._choose = chooser(script)
        self._played = self._arrived = 0
        self.requests = []
        self.connections = 0

    async def __aenter__(self) -> "FakeAnthropic":
        try:
            self._server = await asyncio.start_server(self._serve, HOST, self._port, backlog=BACKLOG)
        except OSError as error:
            said = error.strerror or error
            raise SettingsError(f"{HOST} port {self._port} cannot be listened on ({said}): choose another") from error
        host, port = self._server.sockets[0].getsockname()
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cuts off whatever is at hand."""
        if self._server is not None:
            self._server.close()
        tasks = list(self._connected)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connected.add(task)
        self.connections += 1
        wire = Wire(reader, writer)
        try:
            while received := await wire.receive():
                if not await self._answer(wire, received):
                    return
        except asyncio.CancelledError:
            wire.reset()  # the fake ends; to be cancelled is how it tells us
        except (HungUp, h11.RemoteProtocolError):
            pass
        finally:
            self._connected.discard(task)
            wire.close()

    async def _answer(self, wire: Wire, received: Received) -> bool:
        seen = self._seen(received)
        try:
            return await wire.send(self._replies.reply(seen.asked, seen.step, seen.request_id, self.url))
        except HungUp:
            seen.hung_up = True
            return False
        finally:
            seen.ended_s = time.monotonic()
            if self._ended is not None:
                self._ended(seen)

    def _seen(self, received: Received) -> Seen:
        wanted = asked(received.method, received.target, received.body)
        known = wanted.operation is not Operation.UNKNOWN
        step = self._choose(self._played) if known else Step(status=404)
        self._played += known
        number, self._arrived = self._arrived, self._arrived + 1
        request_id = step.headers.get("request-id", f"req_fake_{number:06d}")
        seen = Seen(number, time.monotonic(), received, wanted, step, request_id)
        if self._remembers:
            self.requests.append(seen)
        return seen


@contextmanager
def fake_anthropic_thread(script: Playable = (), *, tokens_per_s: float | None = None) -> Iterator[FakeAnthropic]:
    """The fake in a thread and a loop of its own, for code without a loop."""
    fake = FakeAnthropic(script, tokens_per_s=tokens_per_s)
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        async with fake:
            stop = asyncio.Event()
            started.set_result((asyncio.get_running_loop(), stop))
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = Thread(target=run, name="fake-anthropic", daemon=True)
    thread.start()
    loop, stop = started.result()
    try:
        yield fake
    finally:
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            loop.call_soon_threadsafe(stop.set)
        thread.join()
