"""What tests of a guarded call's way share: two providers' servers, clients of both, and what the journal was told."""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AnthropicBedrock, AsyncAnthropic, AsyncAnthropicBedrock
from falling_back import MODEL, plain
from folding import moment

from relight.engine.clock import ScriptedClock
from relight.engine.fake.server import FakeAnthropic, fake_anthropic_thread
from relight.engine.fake.steps import Step
from relight.engine.guard.calls.waits import Waits
from relight.engine.guard.facts import Attempt, Call
from relight.engine.guard.guard import Guard
from relight.engine.guard.policy import GuardPolicy
from relight.engine.guard.routes.fallback import Fallback
from relight.engine.policies.breaker import BreakerPolicy
from relight.engine.recorder.options import RecorderOptions
from relight.engine.recorder.recorder import Recorder

ON_BEDROCK = f"eu.anthropic.{MODEL}-v1:0"
ASK: dict[str, Any] = {"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": "hello"}]}
OPEN_S = 30.0
RETRIES_ONCE = GuardPolicy(retries=1, overload_retries=1, jitter=0, breaker=None)
BREAKS_AT_ONCE = GuardPolicy(
    retries=0,
    overload_retries=0,
    jitter=0,
    breaker=BreakerPolicy(consecutive_failures=1, failure_rate=None, open_s=OPEN_S, jitter=0, fleet=None),
)
SYNC_AND_ASYNC = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
CREDENTIALS: dict[str, Any] = {"aws_access_key": "a", "aws_secret_key": "b", "aws_region": "eu-west-1"}


class Scene(Waits):
    """A recorder that reaches nobody, a clock that waits move, two servers, and what the journal was told.

    `number` names its regions, so that its breakers are its own.
    """

    def __init__(self, first: FakeAnthropic, second: FakeAnthropic, recorder: Recorder, number: int) -> None:
        self.first, self.second, self.recorder = first, second, recorder
        assert isinstance(recorder.clock, ScriptedClock)
        self.clock = recorder.clock
        self.one = f"anthropic/first-{number}/{MODEL}"
        self.other = f"aws.bedrock/second-{number}/{ON_BEDROCK}"
        self.waited: list[float] = []
        self.attempts: list[Attempt] = []
        self.calls: list[Call] = []
        self.play()

    def play(self, first: Sequence[Step] = (), second: Sequence[Step] = ()) -> None:
        self.first.play(first)
        self.second.play(second)

    def client(self, policy: GuardPolicy, *fallbacks: Fallback, asynchronous: bool = False, **told: Any) -> Any:
        kind = AsyncAnthropic if asynchronous else Anthropic
        guard = Guard(
            self.recorder, policy, fallbacks=fallbacks, journal=self, waits=self, region=self.one.split("/")[1], **told
        )
        http = plain(asynchronous=asynchronous)
        return kind(base_url=self.first.url, api_key="k", http_client=http, max_retries=0, middleware=[guard])

    def bedrock(self, *, asynchronous: bool = False, **said: Any) -> Fallback:
        kind: Any = AsyncAnthropicBedrock if asynchronous else AnthropicBedrock
        http = plain(asynchronous=asynchronous)
        client = kind(base_url=self.second.url, http_client=http, **CREDENTIALS)
        return Fallback(client, models={MODEL: ON_BEDROCK}, region=self.other.split("/")[1], **said)

    def told(self) -> list[tuple[str, str | None, str | None]]:
        """Of each attempt: whom, what was the matter, and why it was not the first."""
        return [(each.dependency.name, each.failure, each.fallback_reason) for each in self.attempts]

    # The journal.

    def taken(self, call: Call) -> None: ...

    def attempted(self, call: Call, attempt: Attempt) -> None:
        self.attempts.append(attempt)

    def known(self, call: Call, attempt: Attempt | None) -> None:
        self.calls.append(call)
        if attempt is not None:
            self.attempts.append(attempt)

    # Waits.

    def sleep(self, seconds: float) -> None:
        self.waited.append(round(seconds, 3))
        self.clock.advance(seconds)

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)

    def chance(self) -> float:
        return 0.0


Servers = tuple[FakeAnthropic, FakeAnthropic, Recorder, Iterator[int]]


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    options = RecorderOptions(nats_url="nats://127.0.0.1:1", region="eu", tenant="acme", spools=None)
    with (
        fake_anthropic_thread() as first,
        fake_anthropic_thread() as second,
        Recorder(options, clock=ScriptedClock(moment(0))) as recorder,
    ):
        yield first, second, recorder, count(1)


@pytest.fixture
def scene(servers: Servers) -> Scene:
    first, second, recorder, numbers = servers
    return Scene(first, second, recorder, next(numbers))


def ask(client: Any, *, stream: bool = False) -> str:
    """The answer's text, whichever kind of client; raises what it raises."""
    if isinstance(client, anthropic.AsyncAnthropic):
        return asyncio.run(_ask_async(client, stream=stream))
    if not stream:
        return str(client.messages.create(**ASK).content[0].text)
    with client.messages.stream(**ASK) as events:
        return str(events.get_final_text())


async def _ask_async(client: AsyncAnthropic, *, stream: bool) -> str:
    async with client:
        if not stream:
            return str((await client.messages.create(**ASK)).content[0].text)  # type: ignore[union-attr]
        async with client.messages.stream(**ASK) as events:
            return await events.get_final_text()
