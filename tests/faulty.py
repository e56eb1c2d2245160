"""Runs one case of the table of fault scripts by one kind of client, and reads back what was recorded of it."""

import asyncio
import re
import signal
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager, nullcontext
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anthropic
import orjson
import stack
from faults import Case, Stop, Where

from relight.engine import scope
from relight.engine.clock import Clock, ScriptedClock
from relight.engine.fake.seen import Seen
from relight.engine.fake.server import FakeAnthropic, fake_anthropic_thread
from relight.engine.guard.calls.deadlines import deadline
from relight.engine.guard.calls.waits import Waits
from relight.engine.guard.guard import Guard
from relight.engine.guard.policy import GuardPolicy
from relight.engine.log.reader import Message
from relight.engine.recorder.recorder import Recorder

NOWHERE = "nowhere.invalid"
KEY = "sk-secret-1"
MODEL = "claude-opus-4-8"
OURS, THEIRS = "acme", "customer"
"""The recorder's tenant, and the call's."""
ASK: dict[str, Any] = {"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": "what is it?"}]}
PAST = timedelta(days=2)
"""How far behind the scripted clock begins: events from far ahead would be dead letters."""


class ScriptedWaits(Waits):
    """Waits take no time, but move the clock; none is left to chance."""

    def __init__(self, clock: Clock) -> None:
        self.waits_s: list[float] = []
        self.stops = False
        """The caller cancels in the next wait."""
        self.waiting = threading.Event()
        self._clock = clock

    def sleep(self, seconds: float) -> None:
        self._begin(seconds)
        if self.stops:
            raise KeyboardInterrupt

    async def sleep_async(self, seconds: float) -> None:
        self._begin(seconds)
        if self.stops:
            self.waiting.set()
            await asyncio.Event().wait()

    def chance(self) -> float:
        return 0.0

    def _begin(self, seconds: float) -> None:
        self.waits_s.append(seconds)
        if isinstance(self._clock, ScriptedClock) and not self.stops:
            self._clock.advance(seconds)


@dataclass
class Result:
    """What came of one case."""

    place: str
    """The region that its dependency is said to be in, and the correlation of all that is recorded."""
    waits_s: list[float]
    requests: list[Seen]
    connections: int = 0
    got: Any = None
    raised: BaseException | None = None
    deltas: list[str] = field(default_factory=list)
    began: datetime | None = None
    took_s: float = 0.0
    """By the clock of the case."""
    events: list[dict[str, Any]] = field(default_factory=list)
    """What was recorded, in the order of the stream."""

    @property
    def dependency(self) -> str:
        return f"anthropic/{self.place}/{MODEL}"


class Scene:
    """Servers, recorders and clients for all cases of a file. Used from one thread, the main one."""

    def __init__(self, spools: Path) -> None:
        self._exits = ExitStack()
        self._async_exits = AsyncExitStack()
        self._spools = spools
        self.clock = ScriptedClock(datetime.now(UTC).replace(microsecond=0) - PAST)

    def __enter__(self) -> "Scene":
        self.runner = self._exits.enter_context(asyncio.Runner())
        self._exits.callback(lambda: self.runner.run(self._async_exits.aclose()))
        self.fake: FakeAnthropic = self._exits.enter_context(fake_anthropic_thread())
        self._urls = {
            Where.FAKE: self.fake.url,
            Where.NO_NAME: f"http://{NOWHERE}",
            Where.NO_TLS: self.fake.url.replace("http:", "https:"),
            Where.REFUSED: self._exits.enter_context(_refusing()),
            Where.FULL: self._exits.enter_context(_full()),
        }
        self._exits.enter_context(_no_names())
        nats = self.runner.run(self._async_exits.enter_async_context(stack.nats_server()))
        self._nats = self.runner.run(self._async_exits.enter_async_context(stack.connected(nats)))
        options = {"tenant": OURS, "region": "eu"}
        self.scripted = self._exits.enter_context(
            Recorder(stack.options(nats, self._spools / "scripted", **options), clock=self.clock)
        )
        self.live = self._exits.enter_context(Recorder(stack.options(nats, self._spools / "live", **options)))
        self.sync = anthropic.Anthropic(base_url=self.fake.url, api_key=KEY, max_retries=0)
        self._exits.callback(self.sync.close)
        self.asynchronous = anthropic.AsyncAnthropic(base_url=self.fake.url, api_key=KEY, max_retries=0)
        self._exits.callback(lambda: self.runner.run(self.asynchronous.close()))
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def run(self, case: Case, kind: str) -> Result:
        """`kind`: `sync` or `async`. The region is one of the case's own, and so is its breaker."""
        recorder = self.live if case.really else self.scripted
        self.clock.advance(60 - self.clock.now_us() / 1_000_000 % 60)  # a date has no fractions of a second
        waits = ScriptedWaits(recorder.clock)
        waits.stops = case.stops is Stop.IN_WAIT
        place = re.sub("[^a-z0-9]+", "-", f"{case.name} {kind}".lower())
        policy = GuardPolicy.model_validate({"jitter": 0, "breaker": {"jitter": 0}, **case.policy})
        guard = Guard(recorder, policy, waits=waits, region=place)
        raw: Any = self.sync if kind == "sync" else self.asynchronous
        client = raw.with_options(base_url=self._urls[case.where], middleware=[guard], timeout=case.timeout_s)
        self.fake.play(case.steps(self.clock.now()))
        result = Result(place, waits.waits_s, self.fake.requests)
        result.began = recorder.clock.now()
        began_us = recorder.clock.now_us()
        bounded = nullcontext() if case.deadline_s is None else deadline(case.deadline_s, clock=recorder.clock)
        call = _call_sync if kind == "sync" else _call_async
        try:
            with scope.entered(agent="tester", tenant=THEIRS, task=case.name, correlation=place), bounded:
                call(self, case, client, result, waits)
        except BaseException as error:
            result.raised = error
        result.took_s = (recorder.clock.now_us() - began_us) / 1_000_000
        result.connections = self.fake.connections
        return result

    def read_back(self, results: Iterable[Result]) -> None:
        """Fills in what was recorded of each, from the stream."""
        recorded: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for message in self.runner.run(self._on_stream()):
            body = orjson.loads(message.body)
            recorded[body.get("correlationid", "")].append(body)
        for result in results:
            result.events = recorded[result.place]

    async def _on_stream(self) -> list[Message]:
        await stack.drained(self.scripted)
        await stack.drained(self.live)
        return await stack.on_stream(self._nats)


def _call_sync(scene: Scene, case: Case, client: Any, result: Result, waits: ScriptedWaits) -> None:
    with _interrupted(scene.fake) if case.stops is Stop.IN_ATTEMPT else nullcontext():
        if case.counts:
            result.got = client.messages.count_tokens(model=MODEL, messages=ASK["messages"])
        elif case.streams:
            with client.messages.stream(**ASK) as stream:
                for event in stream:
                    _note(result, event)
                result.got = stream.get_final_message()
        else:
            result.got = client.messages.create(**ASK)


def _call_async(scene: Scene, case: Case, client: Any, result: Result, waits: ScriptedWaits) -> None:
    async def call() -> None:
        if case.counts:
            result.got = await client.messages.count_tokens(model=MODEL, messages=ASK["messages"])
        elif case.streams:
            async with client.messages.stream(**ASK) as stream:
                async for event in stream:
                    _note(result, event)
                result.got = await stream.get_final_message()
        else:
            result.got = await client.messages.create(**ASK)

    async def cancelled() -> None:
        calling = asyncio.create_task(call())
        reached: Callable[[], Any] = waits.waiting.is_set
        if case.stops is Stop.IN_ATTEMPT:
            reached = lambda: scene.fake.requests  # noqa: E731
        await stack.until(reached)
        calling.cancel()
        await calling

    # A runner has a context of its own, which knows nothing of the scope and the deadline around.
    scene.runner.run(call() if case.stops is None else cancelled(), context=copy_context())


def _note(result: Result, event: Any) -> None:
    if event.type == "content_block_delta":
        result.deltas.append(event.delta.text)


@contextmanager
def _interrupted(fake: FakeAnthropic) -> Iterator[None]:
    """Ctrl-C, once a request is at hand."""
    main = threading.main_thread()
    over = threading.Event()

    def interrupt() -> None:
        while not fake.requests and not over.is_set():
            time.sleep(0.005)
        if not over.is_set():
            signal.pthread_kill(main.ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGINT, before)


@contextmanager
def _refusing() -> Iterator[str]:
    """A port that is taken, but where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@contextmanager
def _full() -> Iterator[str]:
    """Connecting hangs: the kernel drops what does not fit into the backlog."""
    with ExitStack() as exits, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = exits.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def _no_names() -> Iterator[None]:
    """What a resolver says of a name that there is not, without asking one."""
    resolve = socket.getaddrinfo

    def resolving(host: Any, *arguments: Any, **named: Any) -> Any:
        if host in (NOWHERE, NOWHERE.encode()):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *arguments, **named)

    socket.getaddrinfo = resolving
    try:
        yield
    finally:
        socket.getaddrinfo = resolve
