"""A guarded call before open breakers: it is refused, waits for capacity or goes elsewhere."""

import anthropic
import guarding
import pytest
from guarding import ASK, SERVER_ERROR, Bench, Both

import relight
from relight.engine.fake.steps import Step
from relight.engine.guard.breakers.breakers import Breakers
from relight.engine.guard.facts import Failure
from relight.engine.guard.policy import GuardPolicy
from relight.engine.guard.routes.fallback import Fallback
from relight.engine.policies.breaker import BreakerPolicy

stage, bench, both = guarding.stage, guarding.bench, guarding.both


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
