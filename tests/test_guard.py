"""A guarded call: how often it is made, what is waited, what the caller gets, and what is recorded of it."""

import asyncio
import json
import logging
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import anthropic
import httpx2
import pytest
import pytest_asyncio
import stack
from anthropic import APIRequest
from guarding import ASK, EXACT, NOON, Bench, Both, Notes, idle_recorder
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import relight
from relight.engine.clock import ScriptedClock
from relight.engine.fake.server import FakeAnthropic, fake_anthropic_thread
from relight.engine.fake.steps import Fault, Step
from relight.engine.guard.breakers.breakers import Breakers
from relight.engine.guard.calls.alarms import SWEPT
from relight.engine.guard.calls.classify import MAX_ASKED_S, asked_s
from relight.engine.guard.facts import Failure
from relight.engine.guard.guard import Guard
from relight.engine.guard.guarded import guarded
from relight.engine.guard.policy import GuardPolicy
from relight.engine.guard.routes.fallback import Fallback
from relight.engine.policies.breaker import BreakerPolicy
from relight.engine.recorder.recorder import Recorder

SERVER_ERROR = Step(status=500)
OVERLOADED_EVENT = Step(fault=Fault.ERROR_EVENT, error_type="overloaded_error")
TOLERANCE_S = 0.35
"""Of deadlines: the machine may be busy."""


@pytest.fixture(scope="module")
def clock() -> ScriptedClock:
    return ScriptedClock(NOON)


@pytest.fixture(scope="module")
def recorder(clock: ScriptedClock) -> Iterator[Recorder]:
    with idle_recorder(clock) as recorder:
        yield recorder


@pytest.fixture(scope="module")
def anthropic_fake() -> Iterator[FakeAnthropic]:
    with fake_anthropic_thread() as fake:
        yield fake


@pytest.fixture
def bench(recorder: Recorder, clock: ScriptedClock, anthropic_fake: FakeAnthropic) -> Bench:
    anthropic_fake.play(())
    return Bench(recorder, clock, anthropic_fake)


@pytest_asyncio.fixture(params=[True, False], ids=["async", "sync"])
async def both(request: pytest.FixtureRequest) -> AsyncIterator[Both]:
    both = Both(request.param)
    yield both
    await both.close()


# --- retries


async def test_a_call_that_works_is_made_once_and_recorded(bench: Bench, both: Both) -> None:
    claude = both.client(bench.fake, bench.guard())
    assert (await both.text(claude)).endswith("hello there")
    call, (attempt,) = bench.notes.call, bench.notes.attempts
    assert len(bench.fake.requests) == 1
    assert bench.waited_s == []
    assert call.operation == "chat"
    assert not call.streams
    assert call.failure is None
    assert call.dependency.model == call.served_by.model == ASK["model"]
    assert call.dependency.provider == "anthropic"
    assert call.body == ASK
    assert call.client_max_retries is None
    assert attempt.status == 200
    assert attempt.request_id == "req_fake_000000"
    assert json.loads(attempt.body)["type"] == "message"


async def test_a_server_that_fails_is_asked_again_after_1_2_4_and_8_seconds(bench: Bench, both: Both) -> None:
    bench.fake.play([Step(status=500, times=99)])
    claude = both.client(bench.fake, bench.guard())
    with pytest.raises(anthropic.InternalServerError):
        await both.create(claude)
    assert bench.waited_s == [1, 2, 4, 8]
    assert len(bench.fake.requests) == 5
    assert bench.notes.call.failure is Failure.SERVER_ERROR
    assert bench.notes.failures == [Failure.SERVER_ERROR] * 5
    assert [attempt.waited_s for attempt in bench.notes.attempts] == [0, 1, 2, 4, 8]


@pytest.mark.parametrize(
    ("step", "failure", "waits_s"),
    [
        (Step(status=408), Failure.REQUEST_TIMEOUT, [1]),
        (Step(status=409), Failure.CONFLICT, [1]),
        (Step(status=429), Failure.RATE_LIMITED, [60]),
        (Step(status=429, headers={"retry-after": "7"}), Failure.RATE_LIMITED, [7]),
        (Step(status=503, headers={"retry-after-ms": "1500", "retry-after": "9"}), Failure.SERVER_ERROR, [1.5]),
        (
            Step(status=429, headers={"retry-after": "Tue, 24 Nov 2026 12:00:20 GMT"}),
            Failure.RATE_LIMITED,
            [20],
        ),
        (Step(status=529), Failure.OVERLOADED, [2]),
        (Step(status=400, headers={"x-should-retry": "true"}), Failure.INVALID_REQUEST, [1]),
        (Step(fault=Fault.RESET_BEFORE_HEADERS), Failure.CONNECTION, [1]),
        (Step(fault=Fault.TRUNCATED), Failure.CONNECTION, [1]),
        (Step(fault=Fault.MALFORMED_JSON), Failure.MALFORMED, [1]),
        (Step(fault=Fault.WRONG_CONTENT_TYPE), Failure.MALFORMED, [1]),
        (Step(fault=Fault.EMPTY_BODY), Failure.MALFORMED, [1]),
    ],
    ids=str,
)
async def test_what_another_attempt_may_mend_is_asked_again(
    bench: Bench, both: Both, step: Step, failure: Failure, waits_s: list[float]
) -> None:
    bench.clock.move_to(NOON)
    bench.fake.play([step])
    assert await both.text(both.client(bench.fake, bench.guard()))
    assert bench.waited_s == waits_s
    assert bench.notes.failures == [failure, None]
    assert bench.notes.call.failure is None


@pytest.mark.parametrize(
    ("step", "error", "failure"),
    [
        (Step(status=400), anthropic.BadRequestError, Failure.INVALID_REQUEST),
        (Step(status=401), anthropic.AuthenticationError, Failure.AUTHENTICATION),
        (Step(status=413), anthropic.RequestTooLargeError, Failure.TOO_LARGE),
        (Step(status=500, headers={"x-should-retry": "false"}), anthropic.InternalServerError, Failure.SERVER_ERROR),
        (Step(status=429, headers={"retry-after": "86400"}), anthropic.RateLimitError, Failure.RATE_LIMITED),
    ],
    ids=str,
)
async def test_what_no_other_attempt_mends_is_handed_out_at_once(
    bench: Bench, both: Both, step: Step, error: type[Exception], failure: Failure
) -> None:
    bench.fake.play([step])
    with pytest.raises(error):
        await both.create(both.client(bench.fake, bench.guard()))
    assert bench.waited_s == []
    assert bench.notes.failures == [failure]


async def test_names_that_do_not_resolve_and_doors_that_are_shut_are_told_apart(bench: Bench, both: Both) -> None:
    policy = GuardPolicy(retries=0, breaker=None)
    for url, failure in (
        ("http://no.such.host.invalid", Failure.NAME_RESOLUTION),
        ("http://127.0.0.1:1", Failure.CONNECTION),
        (bench.fake.url.replace("http", "https"), Failure.TLS),
    ):
        notes = Notes()
        with pytest.raises(anthropic.APIConnectionError):
            await both.create(both.client(bench.fake, bench.guard(policy, journal=notes), base_url=url))
        assert notes.failures == [failure]


@pytest.mark.parametrize("said", ["soon", "-3", "nan", "inf", "1e400", str(MAX_ASKED_S * 2), "Tue, 99 Nov 2026", ""])
def test_nonsense_in_retry_after_is_nothing_said(said: str) -> None:
    assert asked_s({"retry-after": said}, now_us=0) is None


async def test_a_body_that_can_be_sent_once_is_not_sent_again(bench: Bench, both: Both) -> None:
    bench.fake.play([SERVER_ERROR])

    def chunks() -> Iterator[bytes]:
        yield json.dumps(ASK).encode()

    async def async_chunks() -> AsyncIterator[bytes]:
        yield json.dumps(ASK).encode()

    content = async_chunks() if both.asynchronous else chunks()
    claude = both.client(bench.fake, bench.guard())
    with pytest.raises(anthropic.InternalServerError):
        await both.do(claude.post, "/v1/messages", content=content, cast_to=anthropic.types.Message)
    assert bench.waited_s == []
    assert len(bench.fake.requests) == 1


async def test_the_callers_request_is_the_same_in_every_attempt(bench: Bench, both: Both) -> None:
    bench.fake.play([SERVER_ERROR, SERVER_ERROR])
    await both.create(both.client(bench.fake, bench.guard()), extra_headers={"x-mine": "1"})
    first, second, third = bench.fake.requests
    assert first.json == second.json == third.json == ASK
    assert {seen.headers["x-mine"] for seen in bench.fake.requests} == {"1"}
    assert len({seen.headers.get("idempotency-key") for seen in bench.fake.requests}) == 1


# --- streams


async def test_streams_are_guarded_in_each_of_their_forms(bench: Bench, both: Both) -> None:
    for ask in (both.streamed, both.events):
        notes = Notes()
        bench.fake.play([OVERLOADED_EVENT, Step(status=500)])
        assert await ask(both.client(bench.fake, bench.guard(journal=notes)))
        assert len(bench.fake.requests) == 3
        assert bench.waited_s == [2, 1]
        assert notes.failures == [Failure.OVERLOADED, Failure.SERVER_ERROR, None]
        call = notes.call
        assert call.streams
        assert call.failure is None
        assert call.first_token_us is not None
        assert call.answer is not None
        assert call.answer.usage.output_tokens
        bench.waited_s.clear()


async def test_after_a_delta_nothing_is_asked_again(bench: Bench, both: Both) -> None:
    bench.fake.play([Step(fault=Fault.ERROR_EVENT, error_type="overloaded_error", after_deltas=1)])
    with pytest.raises(anthropic.APIStatusError):
        await both.streamed(both.client(bench.fake, bench.guard()))
    assert bench.waited_s == []
    assert len(bench.fake.requests) == 1
    assert bench.notes.call.failure is Failure.OVERLOADED


async def test_a_stream_whose_retries_are_used_up_raises_what_the_last_attempt_did(bench: Bench, both: Both) -> None:
    bench.fake.play([OVERLOADED_EVENT, Step(status=500, times=9)])
    with pytest.raises(anthropic.InternalServerError):
        await both.streamed(both.client(bench.fake, bench.guard()))
    assert bench.waited_s == [2, 1, 2, 4, 8]
    assert bench.notes.call.failure is Failure.SERVER_ERROR


async def test_a_stream_that_is_left_is_recorded_so_and_gives_its_connection_back(bench: Bench, both: Both) -> None:
    claude = both.client(bench.fake, bench.guard(), connections=1)
    if both.asynchronous:
        async with claude.messages.stream(**ASK) as stream:
            async for _ in stream:
                break
    else:
        with claude.messages.stream(**ASK) as stream:
            next(iter(stream))
    assert bench.notes.call.failure is Failure.ABANDONED
    assert await both.text(claude)


async def test_a_stream_that_another_task_closes_while_it_is_asked_for_again_is_recorded_once_and_frees_its_connection(
    bench: Bench, both: Both
) -> None:
    """Found: the core went on without its driver, the reader got an AssertionError, and no outcome was recorded."""
    again = Step(delay_s=0.2)
    bench.fake.play([OVERLOADED_EVENT, again])
    claude = both.client(bench.fake, bench.guard(), connections=1)
    stream = await both.do(claude.messages.create, **ASK, stream=True)
    reading = asyncio.create_task(both.do(anext, aiter(stream)) if both.asynchronous else both.do(next, iter(stream)))
    await stack.until(lambda: len(bench.fake.requests) == 2)
    await both.do(stream.close)
    assert bench.notes.call.failure is Failure.ABANDONED
    assert bench.notes.failures == [Failure.OVERLOADED, Failure.ABANDONED]
    with pytest.raises(httpx2.StreamClosed):
        await reading
    assert await both.text(claude)


async def test_raw_and_streamed_responses_are_guarded(bench: Bench, both: Both) -> None:
    bench.fake.play([SERVER_ERROR])
    claude = both.client(bench.fake, bench.guard())
    raw = await both.do(claude.messages.with_raw_response.create, **ASK)
    message = await raw.parse() if both.asynchronous else raw.parse()
    assert message.content[0].text
    assert raw.headers["request-id"] == "req_fake_000001"
    assert bench.notes.failures == [Failure.SERVER_ERROR, None]

    bench.fake.play([SERVER_ERROR])
    if both.asynchronous:
        async with claude.messages.with_streaming_response.create(**ASK) as response:
            assert (await response.parse()).content[0].text
    else:
        with claude.messages.with_streaming_response.create(**ASK) as response:
            assert response.parse().content[0].text
    assert bench.notes.failures == [Failure.SERVER_ERROR, None] * 2
    assert bench.notes.known_calls[-1].answer.usage.output_tokens


async def test_a_model_that_does_not_fit_the_callers_type_is_not_asked_again(bench: Bench, both: Both) -> None:
    class Refund(anthropic.BaseModel):
        amount: int

    bench.fake.play([Step(text='{"amount": "much"}')])
    with pytest.raises(ValueError):
        await both.do(both.client(bench.fake, bench.guard()).messages.parse, **ASK, output_format=Refund)
    assert bench.notes.call.failure is None
    assert len(bench.fake.requests) == 1


# --- deadlines and cancellation


@pytest.mark.parametrize(
    "step",
    [
        Step(fault=Fault.SILENT),
        Step(fault=Fault.SLOW_HEADERS, byte_delay_s=0.05),
        Step(fault=Fault.SLOW_BODY, byte_delay_s=0.05),
        Step(delay_s=30),
    ],
    ids=lambda step: str(step.fault),
)
@pytest.mark.parametrize("streams", [False, True], ids=["plain", "stream"])
async def test_a_deadline_is_kept_whatever_the_server_does(bench: Bench, both: Both, step: Step, streams: bool) -> None:
    bench.fake.play([step])
    claude = both.client(bench.fake, bench.guard(), connections=1)
    began_s = time.monotonic()
    with relight.deadline(0.2, clock=bench.clock), pytest.raises(relight.DeadlineExceeded):
        await (both.streamed if streams else both.create)(claude)
    assert time.monotonic() - began_s < 0.2 + TOLERANCE_S
    assert bench.notes.call.failure is Failure.DEADLINE
    bench.fake.play(())
    assert await both.text(claude)  # its only connection is free


async def test_a_deadline_covers_retries_and_a_wait_beyond_it_is_not_begun(bench: Bench, both: Both) -> None:
    bench.fake.play([Step(status=500, times=9)])
    with relight.deadline(6, clock=bench.clock), pytest.raises(anthropic.InternalServerError):
        await both.create(both.client(bench.fake, bench.guard()))
    assert bench.waited_s == [1, 2]


async def test_an_inner_deadline_never_lengthens_an_outer_one(bench: Bench, both: Both) -> None:
    bench.fake.play([Step(status=500, times=9)])
    with relight.deadline(2, clock=bench.clock), relight.deadline(600, clock=bench.clock):
        with pytest.raises(anthropic.InternalServerError):
            await both.create(both.client(bench.fake, bench.guard()))
    assert bench.waited_s == [1]
    with pytest.raises(ValueError), relight.deadline(0):
        pass


async def test_a_deadline_that_is_over_says_what_failed_before(bench: Bench, both: Both) -> None:
    bench.fake.play([SERVER_ERROR, Step(fault=Fault.SILENT)])
    policy = GuardPolicy(jitter=0, breaker=None, deadline_s=1.2)
    with pytest.raises(relight.DeadlineExceeded, match="after 2 attempts") as raised:
        await both.create(both.client(bench.fake, bench.guard(policy)))
    assert isinstance(raised.value.__cause__, anthropic.InternalServerError)
    assert bench.notes.failures == [Failure.SERVER_ERROR, Failure.DEADLINE]


async def test_a_timeout_of_the_callers_own_is_respected_and_asked_again(bench: Bench, both: Both) -> None:
    bench.fake.play([Step(fault=Fault.SILENT)])
    claude = both.client(bench.fake, bench.guard()).with_options(timeout=0.1)
    assert await both.text(claude)
    assert bench.notes.failures == [Failure.TIMEOUT, None]


async def test_a_cancelled_call_ends_at_once_and_is_recorded(bench: Bench) -> None:
    both = Both(True)
    bench.fake.play([Step(fault=Fault.SILENT)])
    claude = both.client(bench.fake, bench.guard(), connections=1)
    calling = asyncio.create_task(both.create(claude))
    while not bench.fake.requests:
        await asyncio.sleep(0.005)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert bench.notes.call.failure is Failure.CANCELLED
    assert bench.notes.failures == [Failure.CANCELLED]
    assert await both.text(claude)
    await both.close()


async def test_a_call_cancelled_between_attempts_is_recorded(bench: Bench) -> None:
    both, begun = Both(True), asyncio.Event()

    async def sleep(seconds: float) -> None:
        begun.set()
        await asyncio.sleep(60)

    bench.fake.play([SERVER_ERROR])
    bench.paces.sleep_async = sleep  # type: ignore[method-assign]
    calling = asyncio.create_task(both.create(both.client(bench.fake, bench.guard())))
    await begun.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert bench.notes.call.failure is Failure.CANCELLED
    assert bench.notes.failures == [Failure.SERVER_ERROR]
    await both.close()


async def test_failed_attempts_give_their_connections_back(bench: Bench, both: Both) -> None:
    claude = both.client(bench.fake, bench.guard(), connections=1, timeout=httpx2.Timeout(5, pool=1))
    for step in (
        SERVER_ERROR,
        Step(fault=Fault.RESET_IN_BODY),
        Step(fault=Fault.MALFORMED_JSON),
        OVERLOADED_EVENT,
        Step(fault=Fault.NO_MESSAGE_STOP),
    ):
        bench.fake.play([step])
        assert await both.streamed(claude)
        assert await both.text(claude)


# --- clients that retry too


@pytest.mark.parametrize("steps", [[], [Step(status=500, times=5)]], ids=["works", "fails"])
async def test_a_client_that_retries_too_is_reported_once(
    bench: Bench, both: Both, steps: list[Step], caplog: pytest.LogCaptureFixture
) -> None:
    bench.fake.play(steps)
    guard = bench.guard(GuardPolicy(retries=0, breaker=None))
    claude = both.client(bench.fake, guard, max_retries=1)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with suppress(anthropic.AnthropicError):
                await both.create(claude)
    (said,) = [record for record in caplog.records if getattr(record, "action", None) == "attempts_multiply"]
    assert "attempts would multiply" in said.getMessage()
    assert "max_retries=1" in said.getMessage()
    assert {call.client_max_retries for call in bench.notes.calls} == {1}
    health = guard.health()
    assert health.multiplying_clients == 1
    assert "attempts would multiply" in health.warnings[0]
    assert health.retried_outside == (2 if steps else 0)


async def test_a_client_that_is_derived_for_every_call_is_reported_once(
    bench: Bench, both: Both, caplog: pytest.LogCaptureFixture
) -> None:
    """Found: a warning for every call."""
    claude = both.client(bench.fake, guard := bench.guard())
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await both.text(claude.with_options(max_retries=3))
    assert [record.message.startswith("attempts would multiply") for record in caplog.records] == [True]
    assert guard.health().multiplying_clients == 3


async def test_two_guards_of_one_client_are_reported(
    bench: Bench, both: Both, caplog: pytest.LogCaptureFixture
) -> None:
    guard = bench.guard()
    with caplog.at_level(logging.WARNING):
        await both.create(both.client(bench.fake, guard, bench.guard()))
    assert guard.health().doubled_clients == 1
    assert "has 2 guards" in caplog.text


async def test_guarded_gives_a_client_of_the_same_type_that_retries_nothing_itself(bench: Bench, both: Both) -> None:
    bare = both.client(bench.fake, max_retries=2)
    claude = guarded(bare, bench.recorder, EXACT)
    assert type(claude) is type(bare)
    assert claude.max_retries == 0
    assert bare.max_retries == 2
    assert isinstance(claude.middleware[-1], relight.Guard)
    assert not bare.middleware
    assert guarded(claude, bench.recorder, EXACT) is claude
    with pytest.raises(relight.GuardError, match="has a guard already"):
        guarded(claude, bench.recorder, GuardPolicy(retries=1))
    with pytest.raises(relight.GuardError, match="no client"):
        guarded("claude", bench.recorder)
    again = guarded(both.client(bench.fake, Guard(bench.recorder, EXACT), max_retries=2), bench.recorder, EXACT)
    assert again.max_retries == 0
    assert len(again.middleware) == 1


async def test_a_derived_client_keeps_its_guard(bench: Bench, both: Both) -> None:
    bench.fake.play([SERVER_ERROR])
    claude = both.client(bench.fake, bench.guard()).with_options(timeout=20, default_headers={"x-mine": "1"})
    assert await both.text(claude)
    assert len(bench.fake.requests) == 2
    assert bench.waited_s == [1]


# --- other middlewares


class Outer(anthropic.Middleware):
    """Counts, and changes what it passes on."""

    def __init__(self) -> None:
        self.seen = 0

    def handle(self, request: anthropic.APIRequest, call_next: Any) -> Any:
        self.seen += 1
        return call_next(request.copy(headers={**request.headers, "x-outer": str(self.seen)}))

    async def handle_async(self, request: anthropic.APIRequest, call_next: Any) -> Any:
        return await self.handle(request, call_next)


async def test_middlewares_outside_see_a_call_and_those_inside_see_attempts(bench: Bench, both: Both) -> None:
    bench.fake.play([SERVER_ERROR])
    outside, inside = Outer(), Outer()
    assert await both.text(both.client(bench.fake, outside, bench.guard(), inside))
    assert (outside.seen, inside.seen) == (1, 2)


async def test_a_middleware_inside_that_answers_itself_is_no_failure(bench: Bench, both: Both) -> None:
    message = anthropic.types.Message.model_construct(id="msg_cached")

    class Cache(anthropic.Middleware):
        def handle(self, request: anthropic.APIRequest, call_next: Any) -> Any:
            return message

        async def handle_async(self, request: anthropic.APIRequest, call_next: Any) -> Any:
            return message

    assert await both.create(both.client(bench.fake, bench.guard(), Cache())) is message
    assert bench.notes.call.failure is None
    assert not bench.fake.requests


async def test_the_sdks_own_refusal_fallback_works_around_the_guard(bench: Bench, both: Both) -> None:
    bench.fake.play([Step(stop_reason="refusal"), SERVER_ERROR, Step(text="with pleasure")])
    fallback = anthropic.BetaRefusalFallbackMiddleware([{"model": "claude-sonnet-5"}])
    claude = both.client(bench.fake, fallback, bench.guard())
    message = await both.do(claude.beta.messages.create, **ASK)
    assert message.stop_reason == "end_turn"
    assert [seen.json["model"] for seen in bench.fake.requests] == [ASK["model"], *["claude-sonnet-5"] * 2]
    assert [call.attempts for call in bench.notes.known_calls] == [1, 2]


# --- breakers and fallbacks


async def test_an_open_breaker_refuses_a_call_before_it_is_sent(bench: Bench, both: Both) -> None:
    policy = GuardPolicy(retries=0, breaker=BreakerPolicy(consecutive_failures=2, open_s=30, jitter=0, fleet=None))
    guard = bench.guard(policy, breakers=Breakers(bench.recorder))
    claude = both.client(bench.fake, guard)
    bench.fake.play([Step(status=500, times=2)])
    for _ in range(2):
        with pytest.raises(anthropic.InternalServerError):
            await both.create(claude)
    with pytest.raises(relight.CircuitOpen) as refused:
        await both.create(claude)
    assert refused.value.problem["status"] == 503
    assert len(bench.fake.requests) == 2
    assert bench.notes.known_calls[-1].failure is Failure.CIRCUIT_OPEN
    assert bench.notes.known_calls[-1].attempts == 0
    bench.clock.advance(31)
    assert await both.text(claude)


async def test_what_the_caller_did_wrong_is_not_held_against_the_dependency(bench: Bench, both: Both) -> None:
    policy = GuardPolicy(retries=0, breaker=BreakerPolicy(consecutive_failures=1, fleet=None))
    claude = both.client(bench.fake, bench.guard(policy, breakers=Breakers(bench.recorder)))
    bench.fake.play([Step(status=400), Step(status=429), Step(status=401)])
    for _ in range(3):
        with pytest.raises(anthropic.APIStatusError):
            await both.create(claude)
    assert await both.text(claude)


async def test_a_breaker_that_opens_between_attempts_ends_the_call(bench: Bench, both: Both) -> None:
    policy = GuardPolicy(jitter=0, breaker=BreakerPolicy(consecutive_failures=2, open_s=30, jitter=0, fleet=None))
    bench.fake.play([Step(status=500, times=9)])
    with pytest.raises(relight.CircuitOpen) as refused:
        await both.create(both.client(bench.fake, bench.guard(policy, breakers=Breakers(bench.recorder))))
    assert isinstance(refused.value.__cause__, anthropic.InternalServerError)
    assert bench.waited_s == [1]  # it would not be asked after 2 s more
    assert len(bench.fake.requests) == 2


async def test_a_call_may_wait_for_capacity(bench: Bench, both: Both) -> None:
    policy = GuardPolicy(retries=0, breaker=BreakerPolicy(consecutive_failures=1, open_s=3, jitter=0, fleet=None))
    claude = both.client(bench.fake, bench.guard(policy, breakers=Breakers(bench.recorder)))
    bench.fake.play([SERVER_ERROR])
    with pytest.raises(anthropic.InternalServerError):
        await both.create(claude)
    with relight.waiting_for_capacity(10):
        assert await both.text(claude)
    assert sum(bench.waited_s) == pytest.approx(3, abs=0.1)
    assert bench.notes.attempts[-1].waited_s == pytest.approx(3, abs=0.1)


async def test_a_call_falls_back_to_another_model_when_its_retries_are_used_up(bench: Bench, both: Both) -> None:
    bench.fake.play([Step(status=500, times=2)])
    guard = bench.guard(GuardPolicy(retries=1, jitter=0, breaker=None), fallbacks=[Fallback(model="claude-haiku-4-5")])
    for ask in (both.text, both.streamed):
        bench.fake.play([Step(status=500, times=2)])
        assert await ask(both.client(bench.fake, guard))
        assert [seen.json["model"] for seen in bench.fake.requests] == [ASK["model"]] * 2 + ["claude-haiku-4-5"]
    call, attempt = bench.notes.known_calls[-1], bench.notes.attempts[-1]
    assert call.served_by.model == "claude-haiku-4-5"
    assert "server_error" in attempt.fallback_reason
    assert bench.waited_s == [1, 1]


# --- what belongs to the guard itself


class Broken(Notes):
    """A journal that cannot."""

    def taken(self, call: Any) -> None:
        raise RuntimeError("secret")

    attempted = known = taken  # type: ignore[assignment]


async def test_a_call_does_not_fail_because_a_part_of_the_guard_does(
    bench: Bench, both: Both, caplog: pytest.LogCaptureFixture
) -> None:
    bench.fake.play([SERVER_ERROR])
    guard = bench.guard(journal=Broken())
    assert await both.text(both.client(bench.fake, guard))
    health = guard.health()
    assert health.faults == {"journal": 3}
    assert "journal failed 3 times" in health.warnings[-1]
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text


async def test_a_call_belongs_to_the_span_that_is_current(bench: Bench, both: Both) -> None:
    tracer = TracerProvider().get_tracer("test")
    claude = both.client(bench.fake, bench.guard(), open_telemetry=False)
    with tracer.start_as_current_span("step") as span:
        await both.create(claude)
    context = span.get_span_context()
    assert bench.notes.call.traceparent == f"00-{context.trace_id:032x}-{context.span_id:016x}-03"
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_a_call_is_made_in_its_callers_scope(bench: Bench, both: Both) -> None:
    with relight.engine.scope.entered(tenant="acme", agent="refunds"):
        await both.create(both.client(bench.fake, bench.guard()))
    assert bench.notes.call.scope.agent == "refunds"


class Stuck(Breakers):
    """Breakers that cannot answer."""

    def of(self, name: str, policy: BreakerPolicy | None = None) -> Any:
        class Stuck:
            def permit(self, now_us: int) -> None:
                raise RuntimeError("secret")

        return Stuck()


async def test_a_call_does_not_fail_because_its_breaker_does(bench: Bench, both: Both) -> None:
    bench.fake.play([SERVER_ERROR])
    guard = bench.guard(GuardPolicy(jitter=0), breakers=Stuck(bench.recorder))
    assert await both.text(both.client(bench.fake, guard))
    assert guard.health().faults["breaker"] >= 2


async def test_a_thread_is_left_alone_between_its_calls(bench: Bench) -> None:
    """The watch over deadlines cuts what a call waits on, and nothing that its thread does later."""
    both = Both(False)
    claude = both.client(bench.fake, bench.guard())
    bench.fake.play([Step(fault=Fault.SILENT)])

    def call() -> str:
        with suppress(relight.DeadlineExceeded), relight.deadline(0.05, clock=bench.clock):
            claude.messages.create(**ASK)
        return str(claude.messages.create(**ASK).content[0].text)

    assert await asyncio.to_thread(call)
    await both.close()


async def test_deadlines_of_many_calls_are_kept_each_for_itself(bench: Bench) -> None:
    both = Both(True)
    bench.fake.play([Step(fault=Fault.SILENT, times=20)])
    claude = both.client(bench.fake, bench.guard(), connections=30)

    async def took_s(seconds: float) -> float:
        began_s = time.monotonic()
        with relight.deadline(seconds, clock=bench.clock), pytest.raises(relight.DeadlineExceeded):
            await both.create(claude)
        return time.monotonic() - began_s

    allowed_s = [0.02 * ((i * 7) % 20 + 1) for i in range(20)]
    for allowed, took in zip(allowed_s, await asyncio.gather(*map(took_s, allowed_s)), strict=True):
        assert allowed <= took < allowed + TOLERANCE_S
    await both.close()


async def test_calls_with_a_nearer_deadline_are_let_go_when_they_are_over(bench: Bench, both: Both) -> None:
    """Found: for as long as each might have lasted, its request and its answer were held in memory."""
    claude = both.client(bench.fake, bench.guard())
    await both.text(claude)
    gone = []

    async def noted(request: APIRequest, call_next: Any) -> Any:
        gone.append(weakref.ref(request))
        return await call_next(request)

    def noted_sync(request: APIRequest, call_next: Any) -> Any:
        gone.append(weakref.ref(request))
        return call_next(request)

    claude = both.client(bench.fake, noted if both.asynchronous else noted_sync, bench.guard())
    for _ in range(3 * SWEPT):
        with relight.deadline(300, clock=bench.clock):
            await both.text(claude)
    assert sum(request() is not None for request in gone) <= 2 * SWEPT


async def test_an_error_that_names_an_address_leaves_out_what_may_be_a_key(bench: Bench, both: Both) -> None:
    """Found: it quoted the whole of it, user and password among it."""
    bench.fake.play([Step(fault=Fault.NO_MESSAGE_STOP, after_deltas=1, headers={"request-id": ""})])
    place = bench.fake.url.removeprefix("http://")
    claude = both.client(bench.fake, bench.guard(), base_url=f"http://gateway:sk-secret@{place}")
    with pytest.raises(anthropic.APIConnectionError, match=r"of 127\.0\.0\.1/v1/messages ended") as raised:
        await both.events(claude)
    assert "sk-secret" not in str(raised.value)


def test_a_deadline_in_infinity_is_refused_in_plain_words() -> None:
    with pytest.raises(ValueError, match="leave it out"), relight.deadline(float("inf")):
        pass
