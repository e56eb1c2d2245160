"""A guarded call's way through fallbacks, breakers and budgets: what is on the wire, what is told, what comes back."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import anthropic
import pytest
from anthropic import (
    Anthropic,
    AnthropicBedrock,
    AsyncAnthropic,
    AsyncAnthropicBedrock,
    DefaultAsyncHttpxClient,
    DefaultHttpxClient,
)
from folding import moment

from relight.engine import scope
from relight.engine.clock import ScriptedClock
from relight.engine.errors import BudgetExceeded, CircuitOpen, GuardError
from relight.engine.fake.server import FakeAnthropic, fake_anthropic_thread
from relight.engine.fake.steps import Fault, Step
from relight.engine.guard.budgets.budgets import Budgets
from relight.engine.guard.calls.waits import Waits
from relight.engine.guard.facts import Attempt, Call
from relight.engine.guard.guard import Guard
from relight.engine.guard.guarded import guarded
from relight.engine.guard.policy import GuardPolicy
from relight.engine.guard.routes.capacity import waiting_for_capacity
from relight.engine.guard.routes.fallback import Fallback
from relight.engine.policies.breaker import BreakerPolicy
from relight.engine.policies.budget import Limit
from relight.engine.recorder.options import RecorderOptions
from relight.engine.recorder.recorder import Recorder

MODEL, OTHER = "claude-opus-4-8", "claude-haiku-4-5"
ON_BEDROCK = f"eu.anthropic.{MODEL}-v1:0"
ASK: dict[str, Any] = {"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": "hello"}]}
PLAIN = DefaultHttpxClient(verify=False, limits=anthropic.DEFAULT_CONNECTION_LIMITS)
"""Shared: to load certificates for each client takes most of a test's time."""
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


def plain(*, asynchronous: bool) -> Any:
    return DefaultAsyncHttpxClient(verify=False) if asynchronous else PLAIN


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


@SYNC_AND_ASYNC
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_after_its_retries_a_call_goes_to_another_provider_and_the_record_says_why(
    scene: Scene, stream: bool, asynchronous: bool
) -> None:
    scene.play(first=[Step(status=500, times=9)])
    fallback = scene.bedrock(asynchronous=asynchronous, reason="another provider")
    assert ask(scene.client(RETRIES_ONCE, fallback, asynchronous=asynchronous), stream=stream).endswith("to: hello")
    assert scene.waited == [1.0]
    assert scene.told() == [
        (scene.one, "server_error", None),
        (scene.one, "server_error", None),
        (scene.other, None, f"another provider: {scene.one} server_error"),
    ]
    [call] = scene.calls
    assert call.served_by is not None
    assert (call.attempts, call.failure, call.served_by.name) == (3, None, scene.other)
    assert [len(scene.first.requests), len(scene.second.requests)] == [2, 1]


@SYNC_AND_ASYNC
def test_a_stream_that_fails_before_its_first_delta_goes_on_from_another_model(
    scene: Scene, asynchronous: bool
) -> None:
    scene.play(first=[Step(fault=Fault.ERROR_EVENT, error_type="overloaded_error", times=2)])
    client = scene.client(RETRIES_ONCE, Fallback(model=OTHER), asynchronous=asynchronous)
    assert ask(client, stream=True).endswith("to: hello")
    assert [request.json["model"] for request in scene.first.requests] == [MODEL, MODEL, OTHER]
    assert [failure for _, failure, _ in scene.told()] == ["overloaded", "overloaded", None]


def test_after_the_first_delta_nobody_else_is_asked(scene: Scene) -> None:
    scene.play(first=[Step(fault=Fault.RESET_IN_BODY, after_deltas=1, times=9)])
    with pytest.raises(Exception, match=r".+"):
        ask(scene.client(RETRIES_ONCE, Fallback(model=OTHER), scene.bedrock()), stream=True)
    assert [len(scene.first.requests), len(scene.second.requests)] == [1, 0]


@pytest.mark.parametrize(("status", "error"), [(400, anthropic.BadRequestError), (401, anthropic.AuthenticationError)])
def test_what_any_provider_would_refuse_or_nobody_asked_for_goes_nowhere(
    scene: Scene, status: int, error: type[Exception]
) -> None:
    scene.play(first=[Step(status=status, times=9)])
    with pytest.raises(error):
        ask(scene.client(RETRIES_ONCE, scene.bedrock()))
    assert [len(scene.first.requests), len(scene.second.requests)] == [1, 0]


@pytest.mark.parametrize(
    ("step", "on"),
    [
        (Step(status=401), "authentication"),
        (Step(status=529), "overloaded"),
        (Step(stop_reason="refusal"), "refusal"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_fallback_is_on_leads_to_it_at_once(scene: Scene, step: Step, on: str) -> None:
    scene.play(first=[step])
    assert ask(scene.client(RETRIES_ONCE, scene.bedrock(on=(on,)))).endswith("to: hello")
    assert scene.waited == []
    assert [len(scene.first.requests), len(scene.second.requests)] == [1, 1]
    assert scene.attempts[-1].fallback_reason == f"{scene.one} {on}"


def test_a_refusal_that_no_fallback_is_on_is_an_answer(scene: Scene) -> None:
    scene.play(first=[Step(stop_reason="refusal")])
    message = scene.client(RETRIES_ONCE, scene.bedrock()).messages.create(**ASK)
    assert message.stop_reason == "refusal"
    assert [len(scene.first.requests), len(scene.second.requests)] == [1, 0]


def test_when_all_fail_the_caller_gets_the_last_ones_own_error(scene: Scene) -> None:
    scene.play(first=[Step(status=529, times=9)], second=[Step(status=403, times=9)])
    with pytest.raises(anthropic.PermissionDeniedError):
        ask(scene.client(RETRIES_ONCE, scene.bedrock(retries=0)))
    assert [failure for _, failure, _ in scene.told()] == ["overloaded", "overloaded", "permission"]


def test_the_retries_of_a_fallback_are_its_own(scene: Scene) -> None:
    scene.play(first=[Step(status=500, times=9)], second=[Step(status=529, times=9)])
    with pytest.raises(anthropic.InternalServerError):
        ask(scene.client(RETRIES_ONCE, scene.bedrock(retries=0)))
    assert [len(scene.first.requests), len(scene.second.requests)] == [2, 1]


@SYNC_AND_ASYNC
def test_an_open_breaker_leads_on_and_at_the_end_of_the_chain_is_circuit_open(scene: Scene, asynchronous: bool) -> None:
    scene.play(first=[Step(status=500, times=9)], second=[Step(), Step(status=500, times=9)])

    def call() -> str:
        fallback = scene.bedrock(asynchronous=asynchronous)
        return ask(scene.client(BREAKS_AT_ONCE, fallback, asynchronous=asynchronous))

    call()
    with pytest.raises(anthropic.InternalServerError):
        call()
    assert [len(scene.first.requests), len(scene.second.requests)] == [1, 2], "the first is refused by its breaker"
    assert scene.attempts[-1].fallback_reason == f"{scene.one} refused by its breaker"
    scene.clock.advance(1)
    with pytest.raises(CircuitOpen) as raised:
        call()
    assert [len(scene.first.requests), len(scene.second.requests)] == [1, 2]
    problem = raised.value.problem
    assert problem["status"] == 503
    assert problem["instance"] == f"urn:relight:decision:{scene.calls[-1].decision}"
    assert problem["retry_after_s"] == OPEN_S - 1
    routes: Any = problem["routes"]
    assert [route["dependency"] for route in routes] == [scene.one, scene.other]
    assert (scene.calls[-1].failure, scene.calls[-1].attempts) == ("circuit_open", 0)


@SYNC_AND_ASYNC
def test_a_call_may_wait_for_capacity_instead_of_failing(scene: Scene, asynchronous: bool) -> None:
    scene.play(first=[Step(status=500)])

    def call() -> str:
        return ask(scene.client(BREAKS_AT_ONCE, asynchronous=asynchronous))

    with pytest.raises(anthropic.InternalServerError):
        call()
    with pytest.raises(CircuitOpen), waiting_for_capacity(OPEN_S - 1):
        call()
    assert sum(scene.waited) == 0, "it would not have been enough"
    with waiting_for_capacity(OPEN_S + 1):
        assert call().endswith("to: hello")
    assert OPEN_S <= sum(scene.waited) <= OPEN_S + 1
    assert scene.attempts[-1].waited_s == pytest.approx(sum(scene.waited))


def test_a_breaker_that_closes_early_is_noticed_within_a_second(scene: Scene) -> None:
    scene.play(first=[Step(status=500)])
    client = scene.client(BREAKS_AT_ONCE.model_copy(update={"wait_for_capacity_s": 300.0}))
    with pytest.raises(anthropic.InternalServerError):
        ask(client)
    scene.clock.advance(OPEN_S - 0.4)
    assert ask(client).endswith("to: hello")
    assert sum(scene.waited) == pytest.approx(0.4, abs=0.05)


@SYNC_AND_ASYNC
def test_a_budget_is_refused_before_anything_is_sent_and_recorded(scene: Scene, asynchronous: bool) -> None:
    budgets = Budgets([Limit(agent="refunds", tokens=100)])

    def call() -> str:
        return ask(scene.client(RETRIES_ONCE, asynchronous=asynchronous, budgets=budgets))

    scene.play(first=[Step(input_tokens=30, output_tokens=20)])
    with scope.entered(agent="refunds"):
        call()
        with pytest.raises(BudgetExceeded, match="agent refunds: 50 of 100 tokens are used") as raised:
            call()
    assert len(scene.first.requests) == 1
    assert raised.value.problem["instance"] == f"urn:relight:decision:{scene.calls[-1].decision}"
    assert (scene.calls[-1].failure, scene.calls[-1].attempts) == ("budget_exceeded", 0)
    call()  # of nobody's


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_retries_and_fallbacks_count_as_attempts_and_what_a_stream_took_is_known_at_its_end(
    scene: Scene, stream: bool
) -> None:
    budgets = Budgets([Limit(attempts=4), Limit(tokens=10_000)])
    scene.play(first=[Step(status=500, times=9)], second=[Step(input_tokens=11, output_tokens=7), Step(status=500)])
    client = scene.client(RETRIES_ONCE, scene.bedrock(), budgets=budgets)
    ask(client, stream=stream)
    attempts, tokens = budgets.standings(scene.clock.now_us())
    assert (attempts.used.attempts, tokens.used.tokens) == (3, 18)
    assert (attempts.reserved.attempts, tokens.reserved.tokens) == (0, 0)
    with pytest.raises(BudgetExceeded, match="4 of 4 attempts") as raised:
        ask(client, stream=stream)
    assert isinstance(raised.value.__cause__, anthropic.InternalServerError)
    assert [len(scene.first.requests), len(scene.second.requests)] == [3, 1]


def test_a_call_that_every_breaker_refuses_uses_up_no_attempt(scene: Scene) -> None:
    budgets = Budgets([Limit(attempts=2)])
    scene.play(first=[Step(status=500)])
    client = scene.client(BREAKS_AT_ONCE, budgets=budgets)
    with pytest.raises(anthropic.InternalServerError):
        ask(client)
    for _ in range(5):
        with pytest.raises(CircuitOpen):
            ask(client)
    assert budgets.standings(scene.clock.now_us())[0].used.attempts == 1


def test_a_probe_that_the_budget_forbids_is_given_back(scene: Scene) -> None:
    """Found: nobody else could probe for as long as the breaker had been open."""
    budgets = Budgets([Limit(attempts=1, agent="refunds")])
    scene.play(first=[Step(status=500), Step()])
    retrying = BREAKS_AT_ONCE.model_copy(update={"retries": 1, "wait_for_capacity_s": 2 * OPEN_S})
    client = scene.client(retrying, budgets=budgets)
    with scope.entered(agent="refunds"), pytest.raises(BudgetExceeded):
        ask(client)
    assert ask(client).endswith("to: hello")
    assert sum(scene.waited) == pytest.approx(OPEN_S, abs=1), "the other call waited for nothing"


def test_a_hundred_calls_at_once_cannot_overrun_a_limit_together(scene: Scene) -> None:
    budgets = Budgets([Limit(tokens=1_000)])
    scene.play(first=[Step(input_tokens=2, output_tokens=64, delay_s=0.02, times=200)])
    client = scene.client(RETRIES_ONCE, budgets=budgets)

    def call(_: int) -> bool:
        try:
            ask(client)
        except BudgetExceeded:
            return False
        return True

    with ThreadPoolExecutor(20) as threads:
        made = sum(threads.map(call, range(100)))
    [tokens] = budgets.standings(scene.clock.now_us())
    assert tokens.used.tokens == 66 * made == 66 * len(scene.first.requests) <= 1_000
    assert tokens.reserved.tokens == 0


def test_a_guarded_client_may_have_fallbacks_of_its_kind_and_its_provider_only(scene: Scene) -> None:
    bedrock = AnthropicBedrock(base_url=scene.first.url, http_client=PLAIN, **CREDENTIALS)
    elsewhere = AnthropicBedrock(
        base_url=scene.second.url, http_client=PLAIN, **CREDENTIALS | {"aws_region": "us-east-1"}
    )
    scene.play(first=[Step(status=400), Step(status=500)])
    client = guarded(bedrock, scene.recorder, BREAKS_AT_ONCE, fallbacks=[Fallback(elsewhere)])
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(**ASK)
    assert client.messages.create(**ASK).content
    assert scene.second.requests[0].path == f"/model/{MODEL}/invoke"
    with pytest.raises(GuardError, match="cannot be the fallback of an async one"):
        guarded(
            AsyncAnthropic(api_key="k", http_client=plain(asynchronous=True)),
            scene.recorder,
            fallbacks=[Fallback(bedrock, model="m")],
        )
    with pytest.raises(GuardError, match="its own names for models"):
        guarded(Anthropic(api_key="k", http_client=PLAIN), scene.recorder, fallbacks=[Fallback(bedrock)])
    mistaken = scene.client(RETRIES_ONCE, scene.bedrock(asynchronous=True))
    with pytest.raises(GuardError, match="cannot stand in for a sync one"):
        mistaken.messages.create(**ASK)
    assert len(scene.first.requests) == 2
