"""A guarded call that breakers or budgets refuse: what it waits for, what it uses up, and what it is told."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import pytest
import two_providers
from two_providers import BREAKS_AT_ONCE, OPEN_S, RETRIES_ONCE, SYNC_AND_ASYNC, Scene, ask

from relight.engine import scope
from relight.engine.errors import BudgetExceeded, CircuitOpen
from relight.engine.fake.steps import Step
from relight.engine.guard.budgets.budgets import Budgets
from relight.engine.guard.routes.capacity import waiting_for_capacity
from relight.engine.policies.budget import Limit

servers, scene = two_providers.servers, two_providers.scene


@SYNC_AND_ASYNC
def test_an_open_breaker_leads_on_and_at_the_end_of_the_chain_is_circuit_open(scene: Scene, asynchronous: bool) -> None:
    scene.play(first=[Step(status=500, times=9)], second=[Step(), Step(status=500, times=9)])

    def call() -> str:
        fallback = scene.bedrock(asynchronous=asynchronous)
        return ask(scene.client(BREAKS_AT_ONCE, fallback, asynchronous=asynchronous))

    call()
    with pytest.raises(anthropic.InternalServerError):
        call()
    assert [len(scene.first.requests), len(scene.second.requests)] == [1, 2], "the first is refused by its breaker"
    assert scene.attempts[-1].fallback_reason == f"{scene.one} refused by its breaker"
    scene.clock.advance(1)
    with pytest.raises(CircuitOpen) as raised:
        call()
    assert [len(scene.first.requests), len(scene.second.requests)] == [1, 2]
    problem = raised.value.problem
    assert problem["status"] == 503
    assert problem["instance"] == f"urn:relight:decision:{scene.calls[-1].decision}"
    assert problem["retry_after_s"] == OPEN_S - 1
    routes: Any = problem["routes"]
    assert [route["dependency"] for route in routes] == [scene.one, scene.other]
    assert (scene.calls[-1].failure, scene.calls[-1].attempts) == ("circuit_open", 0)


@SYNC_AND_ASYNC
def test_a_call_may_wait_for_capacity_instead_of_failing(scene: Scene, asynchronous: bool) -> None:
    scene.play(first=[Step(status=500)])

    def call() -> str:
        return ask(scene.client(BREAKS_AT_ONCE, asynchronous=asynchronous))

    with pytest.raises(anthropic.InternalServerError):
        call()
    with pytest.raises(CircuitOpen), waiting_for_capacity(OPEN_S - 1):
        call()
    assert sum(scene.waited) == 0, "it would not have been enough"
    with waiting_for_capacity(OPEN_S + 1):
        assert call().endswith("to: hello")
    assert OPEN_S <= sum(scene.waited) <= OPEN_S + 1
    assert scene.attempts[-1].waited_s == pytest.approx(sum(scene.waited))


def test_a_breaker_that_closes_early_is_noticed_within_a_second(scene: Scene) -> None:
    scene.play(first=[Step(status=500)])
    client = scene.client(BREAKS_AT_ONCE.model_copy(update={"wait_for_capacity_s": 300.0}))
    with pytest.raises(anthropic.InternalServerError):
        ask(client)
    scene.clock.advance(OPEN_S - 0.4)
    assert ask(client).endswith("to: hello")
    assert sum(scene.waited) == pytest.approx(0.4, abs=0.05)


@SYNC_AND_ASYNC
def test_a_budget_is_refused_before_anything_is_sent_and_recorded(scene: Scene, asynchronous: bool) -> None:
    budgets = Budgets([Limit(agent="refunds", tokens=100)])

    def call() -> str:
        return ask(scene.client(RETRIES_ONCE, asynchronous=asynchronous, budgets=budgets))

    scene.play(first=[Step(input_tokens=30, output_tokens=20)])
    with scope.entered(agent="refunds"):
        call()
        with pytest.raises(BudgetExceeded, match="agent refunds: 50 of 100 tokens are used") as raised:
            call()
    assert len(scene.first.requests) == 1
    assert raised.value.problem["instance"] == f"urn:relight:decision:{scene.calls[-1].decision}"
    assert (scene.calls[-1].failure, scene.calls[-1].attempts) == ("budget_exceeded", 0)
    call()  # of nobody's


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_retries_and_fallbacks_count_as_attempts_and_what_a_stream_took_is_known_at_its_end(
    scene: Scene, stream: bool
) -> None:
    budgets = Budgets([Limit(attempts=4), Limit(tokens=10_000)])
    scene.play(first=[Step(status=500, times=9)], second=[Step(input_tokens=11, output_tokens=7), Step(status=500)])
    client = scene.client(RETRIES_ONCE, scene.bedrock(), budgets=budgets)
    ask(client, stream=stream)
    attempts, tokens = budgets.standings(scene.clock.now_us())
    assert (attempts.used.attempts, tokens.used.tokens) == (3, 18)
    assert (attempts.reserved.attempts, tokens.reserved.tokens) == (0, 0)
    with pytest.raises(BudgetExceeded, match="4 of 4 attempts") as raised:
        ask(client, stream=stream)
    assert isinstance(raised.value.__cause__, anthropic.InternalServerError)
    assert [len(scene.first.requests), len(scene.second.requests)] == [3, 1]


def test_a_call_that_every_breaker_refuses_uses_up_no_attempt(scene: Scene) -> None:
    budgets = Budgets([Limit(attempts=2)])
    scene.play(first=[Step(status=500)])
    client = scene.client(BREAKS_AT_ONCE, budgets=budgets)
    with pytest.raises(anthropic.InternalServerError):
        ask(client)
    for _ in range(5):
        with pytest.raises(CircuitOpen):
            ask(client)
    assert budgets.standings(scene.clock.now_us())[0].used.attempts == 1


def test_a_probe_that_the_budget_forbids_is_given_back(scene: Scene) -> None:
    """Found: nobody else could probe for as long as the breaker had been open."""
    budgets = Budgets([Limit(attempts=1, agent="refunds")])
    scene.play(first=[Step(status=500), Step()])
    retrying = BREAKS_AT_ONCE.model_copy(update={"retries": 1, "wait_for_capacity_s": 2 * OPEN_S})
    client = scene.client(retrying, budgets=budgets)
    with scope.entered(agent="refunds"), pytest.raises(BudgetExceeded):
        ask(client)
    assert ask(client).endswith("to: hello")
    assert sum(scene.waited) == pytest.approx(OPEN_S, abs=1), "the other call waited for nothing"


def test_a_hundred_calls_at_once_cannot_overrun_a_limit_together(scene: Scene) -> None:
    budgets = Budgets([Limit(tokens=1_000)])
    scene.play(first=[Step(input_tokens=2, output_tokens=64, delay_s=0.02, times=200)])
    client = scene.client(RETRIES_ONCE, budgets=budgets)

    def call(_: int) -> bool:
        try:
            ask(client)
        except BudgetExceeded:
            return False
        return True

    with ThreadPoolExecutor(20) as threads:
        made = sum(threads.map(call, range(100)))
    [tokens] = budgets.standings(scene.clock.now_us())
    assert tokens.used.tokens == 66 * made == 66 * len(scene.first.requests) <= 1_000
    assert tokens.reserved.tokens == 0
