"""What the SDK can do, through the guard: every client of its and every kind of call."""

from typing import Any

import anthropic
import guarding
import httpx2
import pytest
from anthropic import beta_async_tool, beta_tool
from guarding import ASK, SERVER_ERROR, TLS, Bench, Both
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from relight.engine.fake.server import FakeAnthropic
from relight.engine.fake.steps import Fault, Step
from relight.engine.guard.clients.clients import provider_of, region_of
from relight.engine.guard.clients.endpoints import operation
from relight.engine.guard.facts import Failure
from relight.engine.guard.policy import GuardPolicy
from relight.engine.guard.routes.fallback import Fallback

stage, both = guarding.stage, guarding.both


@pytest.fixture
def bench(stage: Bench) -> Bench:
    """A test's own; its server fails at first."""
    stage.fake.play([SERVER_ERROR])
    return Bench(stage.recorder, stage.clock, stage.fake)


def bedrock(both: Both, fake: FakeAnthropic, *middleware: Any, region: str = "eu-west-1") -> Any:
    kind = anthropic.AsyncAnthropicBedrock if both.asynchronous else anthropic.AnthropicBedrock
    return kind(
        base_url=fake.url,
        aws_access_key="a",
        aws_secret_key="b",
        aws_region=region,
        max_retries=0,
        http_client=_http(both),
        middleware=middleware,
    )


def vertex(both: Both, fake: FakeAnthropic, *middleware: Any) -> Any:
    kind = anthropic.AsyncAnthropicVertex if both.asynchronous else anthropic.AnthropicVertex
    return kind(
        base_url=fake.url,
        access_token="t",
        region="europe-west1",
        project_id="p",
        max_retries=0,
        http_client=_http(both),
        middleware=middleware,
    )


def _http(both: Both) -> Any:
    return httpx2.AsyncClient(verify=TLS) if both.asynchronous else httpx2.Client(verify=TLS)


@pytest.mark.parametrize(
    ("make", "provider", "region"),
    [(bedrock, "aws.bedrock", "eu-west-1"), (vertex, "gcp.vertex_ai", "europe-west1")],
    ids=["bedrock", "vertex"],
)
async def test_clients_of_clouds_are_guarded(bench: Bench, both: Both, make: Any, provider: str, region: str) -> None:
    claude = make(both, bench.fake, bench.guard())
    assert await both.text(claude)
    bench.fake.play([Step(fault=Fault.ERROR_EVENT, error_type="overloaded_error"), SERVER_ERROR])
    assert await both.streamed(claude)
    assert bench.waited_s == [1, 2, 1]
    assert bench.notes.failures == [Failure.SERVER_ERROR, None, Failure.OVERLOADED, Failure.SERVER_ERROR, None]
    assert {call.dependency.name for call in bench.notes.calls} == {f"{provider}/{region}/{ASK['model']}"}
    assert all(attempt.request_id for attempt in bench.notes.attempts)
    assert bench.notes.known_calls[-1].answer.usage.output_tokens
    await both.do(claude.close)


async def test_a_bedrock_region_stands_in_for_another(bench: Bench, both: Both) -> None:
    bench.fake.play([Step(status=500, times=2)])
    other = bedrock(both, bench.fake, region="us-east-1")
    policy = GuardPolicy(retries=1, jitter=0, breaker=None)
    guard = bench.guard(policy, provider="aws.bedrock", fallbacks=[Fallback(other)])
    claude = bedrock(both, bench.fake, guard)
    assert await both.streamed(claude)
    assert bench.notes.known_calls[-1].served_by.region == "us-east-1"
    for client in (claude, other):
        await both.do(client.close)


async def test_whom_a_client_calls_is_told_by_the_client(both: Both) -> None:
    sync_or_not = "Async" if both.asynchronous else ""

    def make(kind: str, **given: Any) -> Any:
        return getattr(anthropic, f"{sync_or_not}{kind}")(http_client=_http(both), **given)

    found = {
        (provider_of(client), region_of(client))
        for client in (
            make("Anthropic", api_key="k"),
            make("Anthropic", api_key="k", base_url="https://gateway.example/claude"),
            make("AnthropicFoundry", api_key="k", resource="here"),
            make("AnthropicBedrockMantle", api_key="k", aws_region="eu-west-1"),
        )
    }
    assert found == {
        ("anthropic", "global"),
        ("anthropic", "gateway.example"),
        ("anthropic", "here.services.ai.azure.com"),
        ("aws.bedrock", "eu-west-1"),
    }


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("post", "/v1/messages", "chat"),
        ("post", "/v1/messages?beta=true", "chat"),
        ("post", "/v1/messages/count_tokens?beta=true", "count_tokens"),
        ("get", "/v1/messages/batches/msgbatch_01AB/results", "results"),
        ("post", "/v1/messages/batches", "batches"),
        ("get", "/v1/models/claude-opus-4-8", "models"),
        ("get", "http://127.0.0.1/x9/", "get"),
    ],
)
def test_an_operation_is_named_without_its_ids(method: str, path: str, name: str) -> None:
    assert operation(method, path) == name


async def test_tokens_are_counted_under_guard(bench: Bench, both: Both) -> None:
    claude = both.client(bench.fake, bench.guard())
    counted = await both.do(claude.messages.count_tokens, model=ASK["model"], messages=ASK["messages"])
    assert counted.input_tokens > 0
    assert bench.notes.call.operation == "count_tokens"
    assert bench.notes.failures == [Failure.SERVER_ERROR, None]


async def test_batches_are_made_fetched_listed_and_read_under_guard(bench: Bench, both: Both) -> None:
    claude = both.client(bench.fake, bench.guard())
    asked = [{"custom_id": f"c{i}", "params": ASK} for i in range(3)]
    batch = await both.do(claude.messages.batches.create, requests=asked)
    bench.fake.play([SERVER_ERROR])
    assert (await both.do(claude.messages.batches.retrieve, batch.id)).id == batch.id
    bench.fake.play([SERVER_ERROR])
    if both.asynchronous:
        listed = [each.id async for each in claude.messages.batches.list(limit=1)]
        bench.fake.play([SERVER_ERROR])
        results = [each.custom_id async for each in await claude.messages.batches.results(batch.id)]
    else:
        listed = [each.id for each in claude.messages.batches.list(limit=1)]
        bench.fake.play([SERVER_ERROR, SERVER_ERROR])
        results = [each.custom_id for each in claude.messages.batches.results(batch.id)]
    assert batch.id in listed
    assert results
    named = [call.operation for call in bench.notes.known_calls]
    assert named[:2] == ["batches", "batches"]
    assert named[-1] == "results"
    assert {call.failure for call in bench.notes.known_calls} == {None}
    assert bench.notes.known_calls[0].dependency.model == "-"


async def test_the_beta_endpoints_are_guarded(bench: Bench, both: Both) -> None:
    claude = both.client(bench.fake, bench.guard())
    message = await both.do(claude.beta.messages.create, **ASK, betas=["context-1m-2025-08-07"])
    assert message.content[0].text
    assert bench.notes.call.operation == "chat"
    assert bench.notes.call.attempts == 2


async def test_structured_answers_are_parsed_once_under_guard(bench: Bench, both: Both) -> None:
    class Refund(anthropic.BaseModel):
        amount: int

    bench.fake.play([SERVER_ERROR, Step(text='{"amount": 7}')])
    claude = both.client(bench.fake, bench.guard())
    message = await both.do(claude.messages.parse, **ASK, output_format=Refund)
    assert message.parsed_output == Refund(amount=7)
    assert bench.notes.call.attempts == 2


async def test_thinking_and_tools_pass_as_they_are(bench: Bench, both: Both) -> None:
    claude = both.client(bench.fake, bench.guard())
    tool = {"name": "look", "description": "looks", "input_schema": {"type": "object", "properties": {}}}
    more: dict[str, Any] = {"thinking": {"type": "enabled", "budget_tokens": 1_024}, "tools": [tool]}
    message = await both.create(claude, max_tokens=2_000, **more)
    assert [block.type for block in message.content] == ["thinking", "tool_use"]
    assert [seen.json["tools"] for seen in bench.fake.requests] == [[tool]] * 2
    assert bench.notes.call.body["thinking"] == more["thinking"]


async def test_the_tool_runner_makes_guarded_calls(bench: Bench, both: Both) -> None:
    bench.fake.play([SERVER_ERROR, Step(body=TOOL_USE), SERVER_ERROR, Step(text="it is warm")])
    claude = both.client(bench.fake, bench.guard())
    if both.asynchronous:

        @beta_async_tool
        async def weather(city: str) -> str:
            """The weather there."""
            return f"warm in {city}"

        runner = claude.beta.messages.tool_runner(**ASK, tools=[weather])
        last = await runner.until_done()
    else:

        @beta_tool(name="weather")
        def weather_now(city: str) -> str:
            """The weather there."""
            return f"warm in {city}"

        last = await both.do(claude.beta.messages.tool_runner(**ASK, tools=[weather_now]).until_done)
    assert last.content[0].text == "it is warm"
    assert [call.attempts for call in bench.notes.known_calls] == [2, 2]
    assert "warm in Ulm" in str(bench.fake.requests[-1].json)


TOOL_USE = """{"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-opus-4-8",
 "content": [{"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Ulm"}}],
 "stop_reason": "tool_use", "stop_sequence": null, "usage": {"input_tokens": 3, "output_tokens": 5}}"""


async def test_a_new_model_behind_one_client_is_a_dependency_of_its_own(bench: Bench, both: Both) -> None:
    bench.fake.play(())
    claude = both.client(bench.fake, bench.guard())
    for model in ("claude-opus-4-8", "claude-haiku-4-5", "claude-opus-4-8"):
        await both.create(claude, model=model)
    assert [call.dependency.model for call in bench.notes.calls] == [
        "claude-opus-4-8",
        "claude-haiku-4-5",
        "claude-opus-4-8",
    ]


async def test_a_client_whose_spans_are_on_is_known_too(bench: Bench, both: Both) -> None:
    """Then the SDK makes a chain of middlewares for each call."""

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    claude = both.client(bench.fake, bench.guard(), open_telemetry={"tracer_provider": provider})
    await both.create(claude)
    (span,) = exporter.get_finished_spans()
    context = span.get_span_context()
    assert bench.notes.call.traceparent.split("-")[1:3] == [f"{context.trace_id:032x}", f"{context.span_id:016x}"]
    assert bench.notes.call.dependency.provider == "anthropic"
