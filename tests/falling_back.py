"""What tests of fallbacks share: two servers, a middleware that goes from one client to the next, and the clients."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import anthropic
import pytest
from anthropic import (
    Anthropic,
    AnthropicBedrock,
    AnthropicVertex,
    APIRequest,
    APIResponse,
    AsyncAnthropic,
    AsyncAnthropicBedrock,
    AsyncAnthropicVertex,
    AsyncAPIResponse,
    AsyncCallNext,
    CallNext,
    DefaultAsyncHttpxClient,
    DefaultHttpxClient,
    Middleware,
)

from relight.engine.fake.server import FakeAnthropic, fake_anthropic_thread
from relight.engine.fake.steps import Step
from relight.engine.guard.facts import Dependency, Failure
from relight.engine.guard.routes.chain import Chain, Route, Routes
from relight.engine.guard.routes.fallback import Fallback

MODEL, OTHER = "claude-opus-4-8", "claude-haiku-4-5"
ASK: dict[str, Any] = {"max_tokens": 64, "messages": [{"role": "user", "content": "hello"}]}
PLAIN = DefaultHttpxClient(verify=False)
"""Shared: to load certificates for each client takes most of a test's time."""
FIRST_KEY = "sk-first-secret"
SECOND_KEY = "sk-second"


class Second(Middleware):
    """What a guard does, without retries: the first route that answers well; otherwise the last error."""

    def __init__(self, fallbacks: Sequence[Fallback], *, after: Failure | None = None, **options: Any) -> None:
        self.routes = Routes(fallbacks, **options)
        self.after = after
        self.route: Route | None = None
        self.chain: Chain | None = None

    def handle(self, request: APIRequest, call_next: CallNext) -> APIResponse[Any]:
        chain = self._chain(request, call_next, asynchronous=False)
        route: Route | None = chain.first
        while True:
            assert route is not None
            self.route, outcome = route, None
            try:
                outcome = route.send(route.adapt(request))
                assert isinstance(outcome, APIResponse)
                if outcome.status_code < 400:
                    return outcome
            except anthropic.APIConnectionError as error:
                outcome = error
            route = chain.next(self._failure(outcome))
            if route is None:
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome

    async def handle_async(self, request: APIRequest, call_next: AsyncCallNext) -> AsyncAPIResponse[Any]:
        chain = self._chain(request, call_next, asynchronous=True)
        route: Route | None = chain.first
        while True:
            assert route is not None
            self.route = route
            try:
                outcome: Any = await route.send(route.adapt(request))  # type: ignore[misc]  # an async client's
                assert isinstance(outcome, AsyncAPIResponse)
                if outcome.status_code < 400:
                    return outcome
            except anthropic.APIConnectionError as error:
                outcome = error
            route = chain.next(self._failure(outcome))
            if route is None:
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome  # type: ignore[no-any-return]

    def _chain(self, request: APIRequest, call_next: Any, *, asynchronous: bool) -> Chain:
        body: Any = request.json
        model = body["model"] if isinstance(body, dict) and "model" in body else "-"
        first = Dependency("anthropic", "global", model)
        self.chain = self.routes.chain(request, call_next, first, asynchronous=asynchronous)
        return self.chain

    def _failure(self, outcome: Any) -> Failure:
        if self.after is not None:
            return self.after
        return Failure.CONNECTION if isinstance(outcome, Exception) else Failure.OVERLOADED


@dataclass
class Wires:
    """What the first client asks, and what the others do."""

    first: FakeAnthropic
    second: FakeAnthropic

    def play(self, first: Sequence[Step] = (Step(status=529, times=9),), second: Sequence[Step] = ()) -> None:
        self.first.play(first)
        self.second.play(second)


@pytest.fixture(scope="module")
def threads() -> Iterator[Wires]:
    with fake_anthropic_thread() as first, fake_anthropic_thread() as second:
        yield Wires(first, second)


@pytest.fixture
def wires(threads: Wires) -> Wires:
    threads.play()
    return threads


def plain(*, asynchronous: bool) -> Any:
    return DefaultAsyncHttpxClient(verify=False) if asynchronous else PLAIN


def others(url: str) -> dict[str, tuple[Any, Any, dict[str, Any]]]:
    """Sync and async clients that may be asked instead, and what their fallbacks say."""
    bedrock: dict[str, Any] = {"aws_access_key": "a", "aws_secret_key": "b", "aws_region": "eu-west-1"}
    vertex: dict[str, Any] = {"access_token": "t", "region": "europe-west1", "project_id": "p"}
    return {
        "address": (
            Anthropic(base_url=url, api_key=SECOND_KEY, http_client=PLAIN),
            AsyncAnthropic(base_url=url, api_key=SECOND_KEY, http_client=plain(asynchronous=True)),
            {},
        ),
        "bedrock": (
            AnthropicBedrock(base_url=url, http_client=PLAIN, **bedrock),
            AsyncAnthropicBedrock(base_url=url, http_client=plain(asynchronous=True), **bedrock),
            {"models": {MODEL: f"eu.anthropic.{MODEL}-v1:0"}},
        ),
        "vertex": (
            AnthropicVertex(base_url=url, http_client=PLAIN, **vertex),
            AsyncAnthropicVertex(base_url=url, http_client=plain(asynchronous=True), **vertex),
            {"model": MODEL},
        ),
    }


def first_client(wires: Wires, second: Second, *, asynchronous: bool) -> Any:
    kind = AsyncAnthropic if asynchronous else Anthropic
    http = plain(asynchronous=asynchronous)
    return kind(base_url=wires.first.url, api_key=FIRST_KEY, http_client=http, max_retries=0, middleware=[second])
