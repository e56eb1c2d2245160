"""Fallbacks on the wire: real clients asking a local server that misbehaves, answered by another client or model."""

import asyncio
import json
from typing import Any

import anthropic
import falling_back
import pytest
from anthropic import Anthropic, AnthropicBedrock, APIRequest, APIResponse, CallNext
from falling_back import ASK, FIRST_KEY, MODEL, OTHER, PLAIN, SECOND_KEY, Second, Wires, first_client, others

from relight.engine.fake.steps import Fault, Step
from relight.engine.guard.clients.clients import provider_of
from relight.engine.guard.routes.fallback import Fallback

PLACES = ("address", "bedrock", "vertex")
WAYS = ("create", "stream", "helper", "beta", "raw", "streaming", "options")
threads, wires = falling_back.threads, falling_back.wires


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
