"""Fallbacks: real clients asking a local server that misbehaves, answered by another client or another model."""

import asyncio
import json
import pickle
from collections.abc import Callable, Iterator, Sequence
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
from anthropic._models import FinalRequestOptions

from relight.engine.errors import CircuitOpen, GuardError
from relight.engine.fake.server import FakeAnthropic, fake_anthropic_thread
from relight.engine.fake.steps import Fault, Step
from relight.engine.guard.clients.clients import provider_of, region_of
from relight.engine.guard.facts import Dependency, Failure
from relight.engine.guard.routes.capacity import capacity_s, waiting_for_capacity
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


PLACES = ("address", "bedrock", "vertex")
WAYS = ("create", "stream", "helper", "beta", "raw", "streaming", "options")


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content)


def ask(client: Any, way: str) -> str:
    """The same question in each way that there is, and the text of the answer."""
    match way:
        case "create":
            return text_of(client.messages.create(model=MODEL, **ASK))
        case "stream":
            with client.messages.create(model=MODEL, stream=True, **ASK) as events:
                return "".join(e.delta.text for e in events if e.type == "content_block_delta")
        case "helper":
            with client.messages.stream(model=MODEL, **ASK) as stream:
                return "".join(stream.text_stream)
        case "beta":
            return text_of(client.beta.messages.create(model=MODEL, betas=["some-beta-2026"], **ASK))
        case "raw":
            raw = client.messages.with_raw_response.create(model=MODEL, **ASK)
            assert raw.status_code == 200
            return text_of(raw.parse())
        case "streaming":
            with client.messages.with_streaming_response.create(model=MODEL, **ASK) as response:
                return text_of(response.parse())
        case _:
            with_options = client.with_options(timeout=9)
            return text_of(with_options.messages.create(model=MODEL, extra_headers={"x-mine": "1"}, **ASK))


async def ask_async(client: Any, way: str) -> str:
    match way:
        case "create":
            return text_of(await client.messages.create(model=MODEL, **ASK))
        case "stream":
            async with await client.messages.create(model=MODEL, stream=True, **ASK) as events:
                return "".join([e.delta.text async for e in events if e.type == "content_block_delta"])
        case "helper":
            async with client.messages.stream(model=MODEL, **ASK) as stream:
                return "".join([text async for text in stream.text_stream])
        case "beta":
            return text_of(await client.beta.messages.create(model=MODEL, betas=["some-beta-2026"], **ASK))
        case "raw":
            raw = await client.messages.with_raw_response.create(model=MODEL, **ASK)
            assert raw.status_code == 200
            return text_of(await raw.parse())
        case "streaming":
            async with client.messages.with_streaming_response.create(model=MODEL, **ASK) as response:
                return text_of(await response.parse())
        case _:
            with_options = client.with_options(timeout=9)
            return text_of(await with_options.messages.create(model=MODEL, extra_headers={"x-mine": "1"}, **ASK))


def first_client(wires: Wires, second: Second, *, asynchronous: bool) -> Any:
    kind = AsyncAnthropic if asynchronous else Anthropic
    http = plain(asynchronous=asynchronous)
    return kind(base_url=wires.first.url, api_key=FIRST_KEY, http_client=http, max_retries=0, middleware=[second])


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", PLACES)
def test_another_client_answers_in_the_way_the_caller_asked(
    wires: Wires, place: str, way: str, asynchronous: bool
) -> None:
    clients = others(wires.second.url)[place]
    second = Second([Fallback(clients[asynchronous], reason="elsewhere", **clients[2])])
    client = first_client(wires, second, asynchronous=asynchronous)
    text = asyncio.run(_closing(client, clients[1], way)) if asynchronous else ask(client, way)
    assert text.endswith("to: hello")
    assert (len(wires.first.requests), len(wires.second.requests)) == (1, 1)
    seen = wires.second.requests[0]
    wire = seen.body + json.dumps(seen.headers).encode()
    assert FIRST_KEY.encode() not in wire
    assert second.route is not None
    assert second.route.dependency.provider == provider_of(clients[asynchronous])
    assert second.route.reason == f"elsewhere: anthropic/global/{MODEL} overloaded"
    match place:
        case "address":
            assert seen.headers["authorization"] == f"Bearer {SECOND_KEY}"
            assert seen.json["model"] == MODEL
        case "bedrock":
            assert seen.path.startswith(f"/model/eu.anthropic.{MODEL}-v1:0/invoke")
            assert seen.headers["authorization"].startswith("AWS4-HMAC-SHA256")
        case _:
            assert f"/locations/europe-west1/publishers/anthropic/models/{MODEL}:" in seen.path
            assert seen.headers["authorization"] == "Bearer t"
    if way == "options":
        assert seen.headers["x-mine"] == "1"
    if way == "beta":
        assert b"some-beta-2026" in wire


async def _closing(client: Any, other: Any, way: str) -> str:
    try:
        return await ask_async(client, way)
    finally:
        await client.close()
        await other.close()


def test_the_credentials_of_a_single_request_stay_with_the_first_provider(wires: Wires) -> None:
    _, _, said = others("")["bedrock"]
    bedrock = AnthropicBedrock(
        base_url=wires.second.url, aws_access_key="a", aws_secret_key="b", aws_region="us-east-1"
    )
    client = first_client(wires, Second([Fallback(bedrock, **said)]), asynchronous=False)
    own = {"X-Api-Key": "sk-of-this-request", "Authorization": "Bearer of-this-request", "Cookie": "c=secret"}
    own |= {"Helicone-Auth": "Bearer secret", "x-portkey-api-key": "secret", "cf-access-client-secret": "secret"}
    client.messages.create(model=MODEL, extra_headers=own | {"x-trace": "kept"}, **ASK)
    first, second = wires.first.requests[0].headers, wires.second.requests[0].headers
    assert first["x-api-key"] == "sk-of-this-request"
    assert second["x-trace"] == "kept"
    assert not [name for name, value in second.items() if "of-this-request" in value or "secret" in value]


def test_another_model_is_asked_by_the_same_client_and_the_request_of_the_caller_stays(wires: Wires) -> None:
    wires.play([Step(status=529)])
    seen: list[Any] = []

    def watch(request: APIRequest, call_next: CallNext) -> APIResponse[Any]:
        answer = call_next(request)
        seen.append(request.json)
        return answer

    second = Second([Fallback(model=OTHER, adapt=lambda body: {**body, "max_tokens": 32})])
    client = Anthropic(
        base_url=wires.first.url, api_key="k", http_client=PLAIN, max_retries=0, middleware=[watch, second]
    )
    message = client.messages.create(model=MODEL, **ASK)
    assert [(request.json["model"], request.json["max_tokens"]) for request in wires.first.requests] == [
        (MODEL, 64),
        (OTHER, 32),
    ]
    assert message.model == OTHER
    assert seen[0]["model"] == MODEL


def test_fallbacks_are_tried_in_order_and_the_last_error_is_the_callers(wires: Wires) -> None:
    wires.play(second=[Step(status=503, times=9)])
    address, bedrock = others(wires.second.url)["address"], others(wires.second.url)["bedrock"]
    second = Second([Fallback(address[0], model=OTHER), Fallback(bedrock[0], **bedrock[2])])
    client = first_client(wires, second, asynchronous=False)
    with pytest.raises(anthropic.InternalServerError) as raised:
        client.messages.create(model=MODEL, **ASK)
    assert raised.value.status_code == 503
    assert [request.json.get("model") for request in wires.second.requests] == [OTHER, None]
    assert second.chain is not None
    assert [tried.failed for tried in second.chain.tried] == ["overloaded"] * 3


def test_the_other_clients_own_retries_and_guard_are_off_and_its_middlewares_are_on(wires: Wires) -> None:
    wires.play(second=[Step(status=529, times=9)])
    passed: list[str] = []

    def mine(request: APIRequest, call_next: CallNext) -> APIResponse[Any]:
        passed.append(request.url)
        return call_next(request)

    other = Anthropic(base_url=wires.second.url, api_key="k", http_client=PLAIN, max_retries=5, middleware=[mine])
    client = first_client(wires, Second([Fallback(other)]), asynchronous=False)
    with pytest.raises(anthropic.APIStatusError):
        client.messages.create(model=MODEL, **ASK)
    assert len(wires.second.requests) == 1
    assert passed == ["/v1/messages"]


def test_a_connection_error_of_another_client_is_raised_as_the_sdk_does(wires: Wires) -> None:
    wires.play(second=[Step(fault=Fault.RESET_BEFORE_HEADERS, times=9)])
    client = first_client(wires, Second([Fallback(others(wires.second.url)["address"][0])]), asynchronous=False)
    with pytest.raises(anthropic.APIConnectionError):
        client.messages.create(model=MODEL, **ASK)


def test_tokens_are_counted_where_that_is_possible_and_by_no_other_model(wires: Wires) -> None:
    clients = others(wires.second.url)
    counting = {"model": MODEL, "messages": ASK["messages"]}
    for place in ("address", "vertex"):
        second = Second([Fallback(clients[place][0], **clients[place][2])])
        assert first_client(wires, second, asynchronous=False).messages.count_tokens(**counting).input_tokens > 0
    second = Second([Fallback(clients["bedrock"][0], **clients["bedrock"][2]), Fallback(model=OTHER)])
    with pytest.raises(anthropic.APIStatusError):
        first_client(wires, second, asynchronous=False).messages.count_tokens(**counting)
    assert second.chain is not None
    assert [tried.skipped for tried in second.chain.tried[1:]] == [
        "it counts no tokens",
        "another model's tokens are others",
    ]


def test_what_was_made_at_one_provider_is_asked_of_no_other(wires: Wires) -> None:
    second = Second([Fallback(others(wires.second.url)["address"][0])])
    with pytest.raises(anthropic.APIStatusError):
        first_client(wires, second, asynchronous=False).messages.batches.retrieve("msgbatch_1")
    with pytest.raises(anthropic.APIStatusError):
        first_client(wires, second, asynchronous=False).post(f"{wires.first.url}/v1/messages", body=ASK, cast_to=object)
    assert wires.second.requests == []


def test_a_model_that_nobody_named_for_the_other_provider_is_left_out(wires: Wires) -> None:
    bedrock, _, said = others(wires.second.url)["bedrock"]
    second = Second([Fallback(bedrock, **said)])
    with pytest.raises(anthropic.APIStatusError):
        first_client(wires, second, asynchronous=False).messages.create(model="claude-unheard-of", **ASK)
    assert wires.second.requests == []
    assert second.chain is not None
    assert "claude-unheard-of" in str(second.chain.tried[1])


SYNC = Anthropic(api_key="k", http_client=PLAIN)
ASYNC = AsyncAnthropic(api_key="k", http_client=plain(asynchronous=True))
BEDROCK = AnthropicBedrock(aws_access_key="a", aws_secret_key="b", aws_region="eu-west-1", http_client=PLAIN)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: Fallback(), "needs a client or a model"),
        (lambda: Fallback("claude-haiku-4-5"), "a model is named by model="),  # type: ignore[arg-type]
        (lambda: Fallback(model="m", on=("overlaoded",)), "choose from"),
        (lambda: Fallback(model="m", on=("invalid_request",)), "would refuse"),
        (lambda: Fallback(model="m", retries=-1), "0 or more"),
        (lambda: Routes([Fallback(BEDROCK)]), "its own names for models"),
        (lambda: Routes([Fallback(SYNC)], asynchronous=True), "cannot be the fallback of an async one"),
        (lambda: Routes([Fallback(ASYNC)], asynchronous=False), "cannot be the fallback of a sync one"),
        (lambda: Routes([Fallback(SYNC), Fallback(ASYNC)]), "some fallbacks' clients are async"),
    ],
)
def test_a_fallback_that_could_never_work_is_refused_as_it_is_built(build: Callable[[], object], said: str) -> None:
    with pytest.raises(GuardError, match=said):
        build()


def test_a_guard_whose_client_was_not_known_refuses_fallbacks_of_the_other_kind_at_the_first_call(wires: Wires) -> None:
    client = first_client(wires, Second([Fallback(ASYNC)]), asynchronous=False)
    with pytest.raises(GuardError, match="cannot stand in for a sync one"):
        client.messages.create(model=MODEL, **ASK)
    assert wires.first.requests == []


def test_bedrock_may_fall_back_to_another_region_of_its_own_without_a_word_about_models() -> None:
    assert Routes([Fallback(BEDROCK)], provider="aws.bedrock")
    assert (provider_of(BEDROCK), region_of(BEDROCK)) == ("aws.bedrock", "eu-west-1")
    assert (provider_of(SYNC), region_of(SYNC)) == ("anthropic", "global")
    assert (
        region_of(Anthropic(api_key="k", http_client=PLAIN, base_url="http://proxy.example:8443/x"))
        == "proxy.example:8443"
    )


# The pure part, with nothing on a wire.


@dataclass
class No:
    """A breaker's."""

    retry_at_us: int
    reason: str = "5 failures in a row"


def chain_of(*fallbacks: Fallback) -> Chain:
    request = APIRequest(options=_options(), cast_to=object)
    first = Dependency("anthropic", "global", MODEL)
    return Routes(fallbacks).chain(request, lambda request: None, first, asynchronous=False)  # type: ignore[arg-type,return-value]


def _options() -> FinalRequestOptions:
    return FinalRequestOptions.construct(method="post", url="/v1/messages", json_data={"model": MODEL, **ASK})


@pytest.mark.parametrize("failure", ["invalid_request", "request_too_large", "cancelled", "deadline_exceeded"])
def test_what_no_other_route_would_change_leads_nowhere(failure: str) -> None:
    assert chain_of(Fallback(model=OTHER)).next(failure) is None


@pytest.mark.parametrize("failure", ["authentication", "permission", "not_found", "refusal", "unknown"])
def test_what_one_provider_refuses_leads_on_only_where_that_was_asked_for(failure: str) -> None:
    assert chain_of(Fallback(model=OTHER)).next(failure) is None
    chain = chain_of(Fallback(model="first"), Fallback(model=OTHER, on=(failure,)))
    assert chain.hurries(failure)
    route = chain.next(failure)
    assert route is not None
    assert route.dependency.model == OTHER


def test_a_failure_that_a_fallback_is_on_leads_there_before_the_retries() -> None:
    chain = chain_of(Fallback(model=OTHER, on="overloaded"))
    assert chain.hurries(Failure.OVERLOADED)
    assert not chain.hurries(Failure.SERVER_ERROR)
    assert chain.next(Failure.OVERLOADED) is not None
    assert not chain.hurries(Failure.OVERLOADED), "nothing is left that wants it"
    chain = chain_of(Fallback(model="a"), Fallback(model="b", on="overloaded"))
    assert not chain.hurries(Failure.OVERLOADED), "another one comes first"
    assert chain.next(Failure.OVERLOADED) is not None
    assert chain.hurries(Failure.OVERLOADED)


def test_the_model_that_was_asked_already_is_no_fallback() -> None:
    assert chain_of(Fallback(model=MODEL)).next(Failure.OVERLOADED) is None


def test_waiting_for_capacity_takes_up_only_what_was_refused_and_in_order() -> None:
    chain = chain_of(Fallback(model="a"), Fallback(model="b"), Fallback(model="c"))
    now_us = 1_000_000_000
    assert chain.capacity(now_us, left_s=100) is None, "nothing was refused"
    assert chain.next(No(now_us + 700_000)) is not None
    assert chain.next(Failure.SERVER_ERROR, attempts=5) is not None
    assert chain.next(No(now_us + 400_000)) is not None
    assert chain.next(No(now_us + 90_000_000)) is None
    assert chain.capacity(now_us, left_s=100) == 0.4
    assert chain.capacity(now_us, left_s=0.3) is None, "that is longer than allowed"
    assert chain.capacity(now_us + 10_000_000, left_s=100) == 0.05, "it may be taken by others' probes"
    assert chain.again().dependency.model == MODEL
    second = chain.next(No(now_us + 5_000_000))
    assert second is not None
    assert second.dependency.model == "b"
    third = chain.next(Failure.SERVER_ERROR)
    assert third is not None
    assert third.dependency.model == "c"
    assert chain.next(No(now_us + 5_000_000)) is None
    assert chain.capacity(now_us, left_s=100) == 1.0, "a breaker may close early"


def test_the_time_that_a_caller_allows_stands_in_for_the_policys() -> None:
    assert capacity_s(3.0) == 3.0
    with waiting_for_capacity(0):
        assert capacity_s(3.0) == 0
        with waiting_for_capacity(20):
            assert capacity_s(3.0) == 20
        assert capacity_s(3.0) == 0
    with pytest.raises(ValueError), waiting_for_capacity(-1):
        pass


def test_circuit_open_says_who_refused_until_when_and_who_failed_and_survives_pickling() -> None:
    chain = chain_of(Fallback(BEDROCK, models={"x": "y"}), Fallback(model=OTHER))
    now_us = 1_700_000_000_000_000
    assert chain.next(No(now_us + 12_300_000)) is not None
    assert chain.next(Failure.OVERLOADED, attempts=5) is None
    error = chain.circuit_open(now_us, decision="d-1")
    assert (
        json.loads(json.dumps(error.problem))
        == error.problem
        == {
            "type": "/v1/problems/circuit-open",
            "title": "No dependency takes calls now",
            "status": 503,
            "detail": str(error),
            "instance": "urn:relight:decision:d-1",
            "retry_after_s": 12.3,
            "retry_at": "2023-11-14T22:13:32.300Z",
            "routes": [
                {
                    "dependency": f"anthropic/global/{MODEL}",
                    "refused": "5 failures in a row",
                    "retry_at": "2023-11-14T22:13:32.300Z",
                },
                {
                    "dependency": f"aws.bedrock/eu-west-1/{MODEL}",
                    "skipped": f"nobody said what it calls {MODEL}: see models= of its Fallback",
                },
                {"dependency": f"anthropic/global/{OTHER}", "failed": "overloaded", "attempts": 5},
            ],
        }
    )
    assert "until 22:13:32Z" in str(error)
    assert "come back in 12.3 s" in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, CircuitOpen)
    assert (str(again), again.problem, again.retry_at) == (str(error), error.problem, error.retry_at)
