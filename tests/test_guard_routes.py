"""Which fallbacks can be at all, and which route comes after what: almost all of it without a wire."""

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass

import falling_back
import pytest
from anthropic import Anthropic, AnthropicBedrock, APIRequest, AsyncAnthropic
from anthropic._models import FinalRequestOptions
from falling_back import ASK, MODEL, OTHER, PLAIN, Second, Wires, first_client, plain

from relight.engine.errors import CircuitOpen, GuardError
from relight.engine.guard.clients.clients import provider_of, region_of
from relight.engine.guard.facts import Dependency, Failure
from relight.engine.guard.routes.capacity import capacity_s, waiting_for_capacity
from relight.engine.guard.routes.chain import Chain, Routes
from relight.engine.guard.routes.fallback import Fallback

SYNC = Anthropic(api_key="k", http_client=PLAIN)
ASYNC = AsyncAnthropic(api_key="k", http_client=plain(asynchronous=True))
BEDROCK = AnthropicBedrock(aws_access_key="a", aws_secret_key="b", aws_region="eu-west-1", http_client=PLAIN)
threads, wires = falling_back.threads, falling_back.wires


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
