"""What tests of the guard share: a journal that is read at once, waits that cost nothing, and both clients as one."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import anthropic
import httpx2
import pytest
import pytest_asyncio

from relight.engine.clock import ScriptedClock
from relight.engine.fake.server import FakeAnthropic, fake_anthropic_thread
from relight.engine.fake.steps import Fault, Step
from relight.engine.guard.calls.waits import Waits
from relight.engine.guard.facts import Attempt, Call, Failure
from relight.engine.guard.guard import Guard
from relight.engine.guard.policy import GuardPolicy
from relight.engine.recorder.recorder import Recorder, RecorderOptions

ASK: dict[str, Any] = {
    "model": "claude-opus-4-8",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "hello there"}],
}
EXACT = GuardPolicy(jitter=0, breaker=None)
TLS = ssl.create_default_context()
"""Shared: to make one for each client takes most of a test's time."""
SERVER_ERROR = Step(status=500)
OVERLOADED_EVENT = Step(fault=Fault.ERROR_EVENT, error_type="overloaded_error")
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


class Notes:
    """A journal: what the guard says, in order."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.attempts: list[Attempt] = []
        self.known_calls: list[Call] = []

    def taken(self, call: Call) -> None:
        assert call.attempts == 0
        self.calls.append(call)

    def attempted(self, call: Call, attempt: Attempt) -> None:
        self.attempts.append(attempt)

    def known(self, call: Call, attempt: Attempt | None) -> None:
        assert call not in self.known_calls, "told twice"
        self.known_calls.append(call)
        if attempt is not None:
            self.attempts.append(attempt)

    @property
    def call(self) -> Call:
        """The only one, and it is over."""
        (call,) = self.known_calls
        assert self.calls == [call]
        assert call.attempts == len(self.attempts)
        assert [attempt.number for attempt in self.attempts] == list(range(1, call.attempts + 1))
        assert all(attempt.ended_us is not None for attempt in self.attempts)
        return call

    @property
    def failures(self) -> list[Failure | None]:
        return [attempt.failure for attempt in self.attempts]


class Paces(Waits):
    """Waits that only move the clock, and leave nothing to chance."""

    def __init__(self, clock: ScriptedClock) -> None:
        self.clock = clock
        self.waited_s: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waited_s.append(seconds)
        self.clock.advance(seconds)

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)

    def chance(self) -> float:
        return 0.0


@dataclass
class Bench:
    """A guard on one's own clock, and what it did."""

    recorder: Recorder
    clock: ScriptedClock
    fake: FakeAnthropic
    notes: Notes = field(default_factory=Notes)

    def __post_init__(self) -> None:
        self.paces = Paces(self.clock)

    def guard(self, policy: GuardPolicy = EXACT, **more: Any) -> Guard:
        given: dict[str, Any] = {"journal": self.notes, "waits": self.paces, **more}
        return Guard(self.recorder, policy, **given)

    @property
    def waited_s(self) -> list[float]:
        return self.paces.waited_s


@contextmanager
def idle_recorder(clock: ScriptedClock) -> Iterator[Recorder]:
    """One that keeps all in memory, and never finds a server."""
    recorder = Recorder(
        RecorderOptions(nats_url="nats://127.0.0.1:1", region="eu", tenant="acme", spools=None), clock=clock
    )
    recorder.start()
    try:
        yield recorder
    finally:
        recorder.stop(deadline_s=0)


class Both:
    """The sync and the async client with one face; the sync one works in a thread."""

    def __init__(self, asynchronous: bool) -> None:
        self.asynchronous = asynchronous
        self._opened: list[Any] = []

    def client(self, fake: FakeAnthropic, *middleware: Any, connections: int = 10, **more: Any) -> Any:
        limits = httpx2.Limits(max_connections=connections)
        kind = anthropic.AsyncAnthropic if self.asynchronous else anthropic.Anthropic
        http = httpx2.AsyncClient if self.asynchronous else httpx2.Client
        given = {"base_url": fake.url, "api_key": "sk-secret", "max_retries": 0, "middleware": middleware, **more}
        client = kind(http_client=http(limits=limits, verify=TLS), **given)  # type: ignore[arg-type]
        self._opened.append(client)
        return client

    async def do(self, call: Callable[..., Any], *args: Any, **more: Any) -> Any:
        """Calls a method of the client."""
        if self.asynchronous:
            return await call(*args, **more)
        return await asyncio.to_thread(call, *args, **more)

    async def create(self, client: Any, **more: Any) -> Any:
        return await self.do(client.messages.create, **{**ASK, **more})

    async def text(self, client: Any, **more: Any) -> str:
        message = await self.create(client, **more)
        return str(message.content[0].text)

    async def streamed(self, client: Any, **more: Any) -> str:
        """The text of `messages.stream()`."""
        if self.asynchronous:
            async with client.messages.stream(**{**ASK, **more}) as stream:
                return str((await stream.get_final_message()).content[0].text)

        def read() -> str:
            with client.messages.stream(**{**ASK, **more}) as stream:
                return str(stream.get_final_message().content[0].text)

        return await asyncio.to_thread(read)

    async def events(self, client: Any, **more: Any) -> list[str]:
        """The kinds of what `create(stream=True)` gives."""
        if self.asynchronous:
            stream = await client.messages.create(**{**ASK, **more}, stream=True)
            return [event.type async for event in stream]
        return await asyncio.to_thread(
            lambda: [event.type for event in client.messages.create(**{**ASK, **more}, stream=True)]
        )

    async def close(self) -> None:
        for client in self._opened:
            await self.do(client.close)


@pytest.fixture(scope="module")
def stage() -> Iterator[Bench]:
    """What the benches of a file share."""
    clock = ScriptedClock(NOON)
    with idle_recorder(clock) as recorder, fake_anthropic_thread() as fake:
        yield Bench(recorder, clock, fake)


@pytest.fixture
def bench(stage: Bench) -> Bench:
    """A test's own; its server answers well."""
    stage.fake.play(())
    return Bench(stage.recorder, stage.clock, stage.fake)


@pytest_asyncio.fixture(params=[True, False], ids=["async", "sync"])
async def both(request: pytest.FixtureRequest) -> AsyncIterator[Both]:
    """The test is made with each kind of client."""
    both = Both(request.param)
    yield both
    await both.close()
