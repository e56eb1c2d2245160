"""The fake Anthropic gives the SDK's own clients what the real API would, and each of its faults."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx2
import pytest
import pytest_asyncio
import stack
from anthropic.types import Message

from relight.engine.errors import SettingsError
from relight.engine.fake.seen import Seen
from relight.engine.fake.server import FakeAnthropic
from relight.engine.fake.steps import Fault, Step

ASK: dict[str, Any] = {
    "model": "claude-opus-4-8",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "hello there"}],
}
WEATHER: dict[str, Any] = {
    "name": "weather",
    "description": "of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
    },
}
QUICK_S = 0.0005
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[FakeAnthropic]:
    async with FakeAnthropic() as fake:
        yield fake


@pytest.fixture
def fake(server: FakeAnthropic) -> FakeAnthropic:
    server.play(())
    return server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(server: FakeAnthropic) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=server.url, api_key="k", max_retries=0, timeout=20) as made:
        yield made


@pytest.fixture(scope="module")
def clients(server: FakeAnthropic) -> dict[str, Any]:
    """Of each API, with its own paths and framing."""
    region = "eu-west-1"
    return {
        "first-party": anthropic.AsyncAnthropic(base_url=server.url, api_key="k", max_retries=0),
        "Bedrock": anthropic.AsyncAnthropicBedrock(
            base_url=server.url, aws_access_key="a", aws_secret_key="b", aws_region=region, max_retries=0
        ),
        "Vertex": anthropic.AsyncAnthropicVertex(
            base_url=f"{server.url}/v1", access_token="t", region="europe-west1", project_id="p", max_retries=0
        ),
    }


async def streamed(client: Any, **changes: Any) -> Message:
    async with client.messages.stream(**ASK | changes) as stream:
        message: Message = await stream.get_final_message()
        return message


async def took_s(seen: Seen) -> float:
    """A client may have its answer a moment before the fake notes the end of it."""
    ended_s: float = await stack.until(lambda: seen.ended_s)
    return ended_s - seen.arrived_s


@pytest.mark.parametrize("api", ["first-party", "Bedrock", "Vertex"])
async def test_each_api_gives_the_same_message_plain_streamed_and_beta(
    fake: FakeAnthropic, clients: dict[str, Any], api: str
) -> None:
    plain = await clients[api].messages.create(**ASK)
    assert plain.content[0].text.endswith(" to: hello there")
    assert (plain.stop_reason, plain.model, plain.usage.output_tokens) == ("end_turn", ASK["model"], 9)
    assert (await streamed(clients[api])).model_dump() == plain.model_dump()
    beta = await clients[api].beta.messages.create(**ASK)
    assert beta.content[0].text == plain.content[0].text
    other = await clients[api].messages.create(**ASK | {"messages": [{"role": "user", "content": "hello"}]})
    assert other.content[0].text != plain.content[0].text


@pytest.mark.parametrize("api", ["first-party", "Bedrock", "Vertex"])
async def test_each_api_reports_errors_in_its_own_way(fake: FakeAnthropic, clients: dict[str, Any], api: str) -> None:
    fake.play([Step(status=429, headers={"retry-after": "3"}), Step(fault=Fault.ERROR_EVENT, error_type="api_error")])
    with pytest.raises(anthropic.RateLimitError) as limited:
        await clients[api].messages.create(**ASK)
    assert limited.value.response.headers["retry-after"] == "3"
    with pytest.raises(anthropic.APIStatusError) as broken:
        await streamed(clients[api])
    kind = {"Bedrock": ("internalServerException", None)}.get(api, ("api_error", fake.requests[1].request_id))
    assert (broken.value.type, broken.value.request_id) == kind
    assert broken.value.api_message == "Internal server error"


STATUSES = {
    400: anthropic.BadRequestError,
    401: anthropic.AuthenticationError,
    403: anthropic.PermissionDeniedError,
    404: anthropic.NotFoundError,
    408: anthropic.RequestTimeoutError,
    409: anthropic.ConflictError,
    413: anthropic.RequestTooLargeError,
    422: anthropic.UnprocessableEntityError,
    429: anthropic.RateLimitError,
    500: anthropic.InternalServerError,
    502: anthropic.InternalServerError,
    503: anthropic.ServiceUnavailableError,
    504: anthropic.GatewayTimeoutError,
    529: anthropic.OverloadedError,
}


async def test_each_status_raises_its_error_with_type_and_request_id(
    fake: FakeAnthropic, client: anthropic.AsyncAnthropic
) -> None:
    fake.play([Step(status=status, times=2) for status in STATUSES])
    for number, (status, error) in enumerate(STATUSES.items()):
        with pytest.raises(error) as plain:
            await client.messages.create(**ASK)
        with pytest.raises(error):
            await streamed(client)
        assert plain.value.status_code == status
        assert plain.value.request_id == f"req_fake_{2 * number:06d}"
        assert plain.value.type is not None


Raised = type[Exception]
PLAIN: dict[Fault, Raised] = {
    Fault.RESET_BEFORE_HEADERS: anthropic.APIConnectionError,
    Fault.RESET_AFTER_HEADERS: anthropic.APIConnectionError,
    Fault.RESET_IN_BODY: anthropic.APIConnectionError,
    Fault.CLOSED_BEFORE_HEADERS: anthropic.APIConnectionError,
    Fault.TRUNCATED: anthropic.APIConnectionError,
    Fault.NO_MESSAGE_STOP: anthropic.APIConnectionError,
    Fault.ERROR_EVENT: anthropic.OverloadedError,
    Fault.MALFORMED_JSON: json.JSONDecodeError,
    Fault.EMPTY_BODY: json.JSONDecodeError,
}
STREAMED: dict[Fault, Raised] = {
    Fault.RESET_BEFORE_HEADERS: anthropic.APIConnectionError,
    Fault.RESET_AFTER_HEADERS: httpx2.ReadError,
    Fault.RESET_IN_BODY: httpx2.ReadError,
    Fault.CLOSED_BEFORE_HEADERS: anthropic.APIConnectionError,
    Fault.TRUNCATED: httpx2.RemoteProtocolError,
    Fault.ERROR_EVENT: anthropic.APIStatusError,
    Fault.MALFORMED_JSON: json.JSONDecodeError,
}


def _faulty(fault: Fault, deltas: int = 0) -> Step:
    return Step(fault=fault, after_deltas=deltas, error_type="overloaded_error", byte_delay_s=QUICK_S)


@pytest.mark.parametrize("fault", PLAIN)
async def test_a_faulty_plain_answer_raises_what_the_sdk_makes_of_it(
    fake: FakeAnthropic, client: anthropic.AsyncAnthropic, fault: Fault
) -> None:
    fake.play([_faulty(fault)])
    with pytest.raises(PLAIN[fault]) as raised:
        await client.messages.create(**ASK)
    if "reset" in fault:
        assert isinstance(raised.value.__cause__, httpx2.ReadError)
    assert (await client.messages.create(**ASK)).stop_reason == "end_turn"


@pytest.mark.parametrize("deltas", [0, 1])
@pytest.mark.parametrize("fault", STREAMED)
async def test_a_faulty_stream_breaks_just_where_the_step_says(
    fake: FakeAnthropic, client: anthropic.AsyncAnthropic, fault: Fault, deltas: int
) -> None:
    fake.play([_faulty(fault, deltas)])
    types: list[str] = []

    async def read() -> None:
        async for event in await client.messages.create(**ASK, stream=True):
            types.append(event.type)  # noqa: PERF401  # those before the fault are wanted

    with pytest.raises(STREAMED[fault]):
        await read()
    in_body = fault not in (Fault.RESET_BEFORE_HEADERS, Fault.RESET_AFTER_HEADERS, Fault.CLOSED_BEFORE_HEADERS)
    assert types.count("content_block_delta") == (deltas if in_body else 0)
    assert ("message_start" in types) == in_body


async def test_a_status_without_a_body_has_none(fake: FakeAnthropic, client: anthropic.AsyncAnthropic) -> None:
    fake.play([Step(status=204), Step(status=304)])
    assert (await client.messages.with_raw_response.create(**ASK)).status_code == 204
    with pytest.raises(anthropic.APIStatusError):
        await client.messages.create(**ASK)


async def test_a_stream_without_its_end_ends_in_order(fake: FakeAnthropic, client: anthropic.AsyncAnthropic) -> None:
    fake.play([_faulty(Fault.NO_MESSAGE_STOP, 2), _faulty(Fault.EMPTY_BODY)])
    types = [event.type async for event in await client.messages.create(**ASK, stream=True)]
    assert types == ["message_start", "content_block_start", "content_block_delta", "content_block_delta"]
    assert [event async for event in await client.messages.create(**ASK, stream=True)] == []


async def test_a_page_of_html_is_what_a_proxy_gives(fake: FakeAnthropic, client: anthropic.AsyncAnthropic) -> None:
    fake.play([_faulty(Fault.WRONG_CONTENT_TYPE)])
    response = await client.messages.with_raw_response.create(**ASK)
    assert response.headers["content-type"] == "text/html"
    assert str(await response.parse()).startswith("<html>")


async def test_slow_headers_and_bodies_come_byte_by_byte(fake: FakeAnthropic, client: anthropic.AsyncAnthropic) -> None:
    for fault in (Fault.SLOW_HEADERS, Fault.SLOW_BODY):
        fake.play([_faulty(fault)])
        began = time.monotonic()
        assert (await client.messages.create(**ASK)).stop_reason == "end_turn"
        assert time.monotonic() - began > 80 * QUICK_S
    fake.play([Step(fault=Fault.SLOW_BODY, byte_delay_s=60)])
    with pytest.raises(anthropic.APITimeoutError):
        await client.with_options(timeout=0.1).messages.create(**ASK)


async def test_delays_come_before_the_headers_and_between_chunks(
    fake: FakeAnthropic, client: anthropic.AsyncAnthropic
) -> None:
    fake.play([Step(delay_s=0.05), Step(chunk_delay_s=0.005), Step(chunk_delay_s=0.005)])
    for call in (client.messages.create(**ASK), client.messages.create(**ASK), streamed(client)):
        assert (await call).stop_reason == "end_turn"
    assert min([await took_s(seen) for seen in fake.requests]) >= 0.04


async def test_a_silent_fake_notices_that_the_client_goes(
    fake: FakeAnthropic, client: anthropic.AsyncAnthropic
) -> None:
    fake.play([Step(fault=Fault.SILENT)])
    with pytest.raises(anthropic.APITimeoutError):
        await client.with_options(timeout=0.1).messages.create(**ASK)
    await stack.until(lambda: fake.requests[0].hung_up)


async def test_every_request_is_seen_as_it_was_on_the_wire(
    fake: FakeAnthropic, client: anthropic.AsyncAnthropic
) -> None:
    await client.beta.messages.create(
        **ASK, betas=["x-1"], extra_headers={"X-Mine": "yes"}, extra_query={"beta": "true"}
    )
    [seen] = fake.requests
    assert (seen.method, seen.path) == ("POST", "/v1/messages?beta=true")
    assert (seen.headers["x-mine"], seen.headers["anthropic-beta"]) == ("yes", "x-1")
    assert json.loads(seen.body) == seen.json == ASK
    assert 0 <= await took_s(seen) <= time.monotonic() - seen.arrived_s


async def test_a_tool_is_used_first_and_its_result_answered_then(
    fake: FakeAnthropic, client: anthropic.AsyncAnthropic
) -> None:
    used = await client.messages.create(**ASK, tools=[WEATHER])
    assert used.stop_reason == "tool_use"
    [block] = used.content
    assert block.type == "tool_use"
    assert block.input == {"city": "example", "days": 1}
    assert (await streamed(client, tools=[WEATHER])).content == used.content
    result = {"type": "tool_result", "tool_use_id": block.id, "content": "rain"}
    turns = [*ASK["messages"], {"role": "assistant", "content": used.content}, {"role": "user", "content": [result]}]
    assert (await client.messages.create(**ASK | {"messages": turns}, tools=[WEATHER])).stop_reason == "end_turn"


async def test_thinking_comes_before_the_text_with_its_signature(
    fake: FakeAnthropic, client: anthropic.AsyncAnthropic
) -> None:
    message = await streamed(client, thinking={"type": "adaptive"})
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[0].signature  # type: ignore[union-attr]


async def test_a_refusal_has_no_content(fake: FakeAnthropic, client: anthropic.AsyncAnthropic) -> None:
    fake.play([Step(stop_reason="refusal", times=2)])
    for message in (await client.messages.create(**ASK), await streamed(client)):
        assert (message.stop_reason, message.content) == ("refusal", [])
        assert message.stop_details is not None


async def test_an_answer_ends_at_max_tokens_and_is_as_long_as_the_step_says(
    fake: FakeAnthropic, client: anthropic.AsyncAnthropic
) -> None:
    fake.play([Step(), Step(output_tokens=50, input_tokens=7, cache_read_tokens=3)])
    short = await client.messages.create(**ASK | {"max_tokens": 2})
    assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 2)
    long = await client.messages.create(**ASK)
    assert len(long.content[0].text) >= 50 * 4 - 8  # type: ignore[union-attr]
    assert (long.usage.input_tokens, long.usage.output_tokens, long.usage.cache_read_input_tokens) == (7, 50, 3)


async def test_tokens_are_counted_and_wrong_requests_refused(
    fake: FakeAnthropic, client: anthropic.AsyncAnthropic
) -> None:
    counted = await client.messages.count_tokens(model="m", messages=ASK["messages"])
    assert counted.input_tokens == (await client.messages.create(**ASK)).usage.input_tokens
    with pytest.raises(anthropic.BadRequestError, match="messages: Field required"):
        await client.messages.create(**ASK | {"messages": []})
    with pytest.raises(anthropic.NotFoundError):
        await client.get("/v1/nothing", cast_to=object)
    assert fake.requests[-1].misbehaved == "404"


async def test_batches_are_made_found_and_read_line_by_line(
    fake: FakeAnthropic, client: anthropic.AsyncAnthropic
) -> None:
    requests: Any = [{"custom_id": name, "params": ASK} for name in ("a", "b")]
    batch = await client.messages.batches.create(requests=requests)
    assert await client.messages.batches.retrieve(batch.id) == batch
    assert batch.request_counts.succeeded == 2
    results = [line async for line in await client.messages.batches.results(batch.id)]
    assert [line.custom_id for line in results] == ["a", "b"]
    assert {line.result.type for line in results} == {"succeeded"}
    with pytest.raises(anthropic.NotFoundError):
        await client.messages.batches.retrieve("msgbatch_none")


async def test_a_paced_answer_takes_as_long_as_its_tokens(client: anthropic.AsyncAnthropic) -> None:
    async with FakeAnthropic([Step(output_tokens=20)], tokens_per_s=200) as slow:
        await client.with_options(base_url=slow.url).messages.create(**ASK)
        assert await took_s(slow.requests[0]) >= 0.09


async def test_requests_at_once_are_answered_at_once(fake: FakeAnthropic, client: anthropic.AsyncAnthropic) -> None:
    fake.play([Step(delay_s=0.2, times=20)])
    began = time.monotonic()
    await asyncio.gather(*(client.messages.create(**ASK) for _ in range(20)))
    assert time.monotonic() - began < 20 * 0.2
    assert len(fake.requests) == 20


async def test_a_taken_port_is_refused_in_a_sentence(fake: FakeAnthropic) -> None:
    port = int(fake.url.rpartition(":")[2])
    with pytest.raises(SettingsError, match=f"127.0.0.1 port {port} cannot be listened on"):
        async with FakeAnthropic(port=port):
            pass
