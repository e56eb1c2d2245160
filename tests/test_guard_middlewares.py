"""A guard among what else a client has: retries of its own, another guard, other middlewares."""

import logging
from contextlib import suppress
from typing import Any

import anthropic
import guarding
import pytest
from guarding import ASK, EXACT, SERVER_ERROR, Bench, Both

import relight
from relight.engine.fake.steps import Step
from relight.engine.guard.guard import Guard
from relight.engine.guard.guarded import guarded
from relight.engine.guard.policy import GuardPolicy

stage, bench, both = guarding.stage, guarding.bench, guarding.both


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
