"""A guarded call's retries: what is asked again and what is not, and what is waited."""

import json
from collections.abc import AsyncIterator, Iterator

import anthropic
import guarding
import httpx2
import pytest
from guarding import ASK, NOON, OVERLOADED_EVENT, SERVER_ERROR, Bench, Both, Notes

from relight.engine.fake.steps import Fault, Step
from relight.engine.guard.calls.classify import MAX_ASKED_S, asked_s
from relight.engine.guard.facts import Failure
from relight.engine.guard.policy import GuardPolicy

stage, bench, both = guarding.stage, guarding.bench, guarding.both


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


async def test_a_model_that_does_not_fit_the_callers_type_is_not_asked_again(bench: Bench, both: Both) -> None:
    class Refund(anthropic.BaseModel):
        amount: int

    bench.fake.play([Step(text='{"amount": "much"}')])
    with pytest.raises(ValueError):
        await both.do(both.client(bench.fake, bench.guard()).messages.parse, **ASK, output_format=Refund)
    assert bench.notes.call.failure is None
    assert len(bench.fake.requests) == 1


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
