"""The breaker of one process, purely: when it opens, whom it lets pass, and for how long."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pydantic import ValidationError

from relight.engine.policies.breaker import BreakerPolicy, LocalBreaker
from relight.engine.policies.fleet_breaker import State

S = 1_000_000
T0 = 1_767_225_600 * S
QUICK = settings(max_examples=100, stateful_step_count=40, deadline=None)


def local(draw: float = 0.0, **policy: Any) -> LocalBreaker:
    return LocalBreaker(BreakerPolicy(**{"jitter": 0, **policy}), lambda: draw)


def failing(breaker: LocalBreaker, times: int, at_us: int = T0) -> LocalBreaker:
    for _ in range(times):
        breaker.failed(at_us)
    return breaker


def test_it_opens_with_the_fifth_failure_in_a_row_and_no_earlier() -> None:
    breaker = failing(local(), 4)
    breaker.succeeded(T0, 1_000)
    failing(breaker, 4)
    assert breaker.permit(T0) == 0
    assert breaker.failed(T0)
    assert (breaker.state, breaker.reason, breaker.retry_at_us) == (State.OPEN, "5 failures in a row", T0 + 30 * S)
    assert breaker.permit(T0 + 30 * S - 1) is None


def test_it_opens_at_a_failure_rate_once_there_are_enough_calls() -> None:
    breaker = local(consecutive_failures=None, failure_rate=0.5, minimum_calls=10)
    for _ in range(4):
        assert not breaker.failed(T0)
        assert not breaker.succeeded(T0, 1_000)
    assert not breaker.failed(T0), "9 calls are too few"
    assert breaker.failed(T0)
    assert breaker.reason == "6 of 10 calls failed"


def test_calls_leave_the_window_as_time_passes() -> None:
    breaker = local(consecutive_failures=None, failure_rate=0.5, minimum_calls=10, window_s=10)
    failing(breaker, 9)
    for second in range(1, 12):
        breaker.succeeded(T0 + second * S, 1_000)
    assert (breaker.calls, breaker.failures) == (10, 0)
    assert not breaker.failed(T0 + 11 * S)


def test_after_a_long_pause_nothing_of_before_counts() -> None:
    breaker = failing(local(consecutive_failures=None, minimum_calls=10), 9)
    assert not breaker.failed(T0 + 3_600 * S)
    assert breaker.calls == 1


def test_it_opens_where_answers_come_but_too_late() -> None:
    breaker = local(slow_rate=0.5, slow_ms=200, minimum_calls=4)
    assert not any(breaker.succeeded(T0, latency) for latency in (100_000, 200_000, 300_000))
    assert breaker.succeeded(T0, 300_000)
    assert (breaker.state, breaker.reason) == (State.OPEN, "2 of 4 calls took longer than 200 ms")


def test_a_condition_that_is_off_never_opens_it() -> None:
    breaker = failing(local(consecutive_failures=None, failure_rate=None), 1_000)
    assert breaker.permit(T0) == 0


def test_half_open_it_lets_so_many_probes_pass_and_closes_with_so_many_successes() -> None:
    breaker = failing(local(probes=3, successes=2), 5)
    later = T0 + 30 * S
    epochs = [breaker.permit(later) for _ in range(4)]
    assert epochs == [1, 1, 1, None]
    assert not breaker.probe_succeeded(1, later, 1_000)
    assert breaker.probe_succeeded(1, later, 1_000)
    assert breaker.state is State.CLOSED
    assert not breaker.failed(later), "failures from before it opened are forgotten"


def test_each_opening_lasts_longer_up_to_a_cap_until_it_closes() -> None:
    breaker, now, lasted = failing(local(open_s=10, growth=2, open_max_s=50), 5), T0, []
    for _ in range(4):
        lasted.append((breaker.retry_at_us - now) // S)
        now = breaker.retry_at_us
        epoch = breaker.permit(now)
        assert epoch
        assert breaker.probe_failed(epoch, now)
    assert lasted == [10, 20, 40, 50]
    now = breaker.retry_at_us
    breaker.probe_succeeded(breaker.permit(now) or 0, now, 1_000)
    assert failing(breaker, 5, now).retry_at_us == now + 10 * S


def test_jitter_only_lengthens() -> None:
    assert failing(local(draw=0.5, jitter=0.2), 5).retry_at_us == T0 + 33 * S


def test_what_comes_of_calls_from_before_does_not_count() -> None:
    breaker = failing(local(), 5)
    first = breaker.permit(T0 + 30 * S)
    assert first
    breaker.probe_failed(first, T0 + 30 * S)
    second = breaker.permit(T0 + 90 * S)
    assert not breaker.probe_succeeded(first, T0 + 90 * S, 1_000), "a probe of an earlier period"
    assert breaker.state is State.HALF_OPEN
    assert breaker.probe_succeeded(second or 0, T0 + 90 * S, 1_000)


def test_a_probe_that_tells_nothing_is_given_to_another_call() -> None:
    breaker = failing(local(), 5)
    epoch = breaker.permit(T0 + 30 * S)
    assert breaker.permit(T0 + 30 * S) is None
    breaker.probe_released(epoch or 0)
    assert breaker.permit(T0 + 30 * S) == epoch


def test_a_probe_that_is_never_heard_of_again_does_not_keep_it_shut_for_ever() -> None:
    breaker = failing(local(), 5)
    assert breaker.permit(T0 + 30 * S) == 1
    assert breaker.permit(T0 + 59 * S) is None
    assert breaker.permit(T0 + 60 * S) == 2


def test_a_clock_that_is_put_back_keeps_it_open_no_longer() -> None:
    breaker = failing(local(), 5)
    assert breaker.permit(T0 - 3_600 * S) is None
    assert breaker.permit(T0 - 3_600 * S + 30 * S) == 1


@pytest.mark.parametrize("wrong", [{"probes": 1, "successes": 2}, {"open_s": 60, "open_max_s": 30}, {"growth": 0.5}])
def test_a_policy_that_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BreakerPolicy(**wrong)


class OneProcess(RuleBasedStateMachine):
    """Calls that begin and end whenever they like."""

    def __init__(self) -> None:
        super().__init__()
        self.now = T0
        self.policy = BreakerPolicy(
            consecutive_failures=2, probes=2, successes=2, open_s=5, open_max_s=30, jitter=0.5, minimum_calls=4
        )
        self.breaker = LocalBreaker(self.policy, lambda: 0.7)
        self.under_way: list[int] = []
        self.probes: dict[int, int] = {}
        self.last_opening_us = 0

    @rule()
    def asks(self) -> None:
        was_open_until = self.breaker.retry_at_us if self.breaker.state is State.OPEN else 0
        ready, epoch = self.breaker.ready(self.now), self.breaker.permit(self.now)
        assert (epoch is not None) == ready
        if epoch is None:
            return
        assert self.now >= was_open_until
        self.under_way.append(epoch)
        if epoch:
            self.probes[epoch] = self.probes.get(epoch, 0) + 1
            assert self.probes[epoch] <= self.policy.probes

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), how=st.sampled_from(["succeeded", "failed", "released"]))
    def ends(self, data: st.DataObject, how: str) -> None:
        epoch = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        breaker, before = self.breaker, (self.breaker.state, self.breaker.epoch)
        if how == "released":
            breaker.probe_released(epoch)
            if epoch and epoch == breaker.epoch and breaker.state is State.HALF_OPEN:
                self.probes[epoch] -= 1
        elif epoch:
            changed = (
                breaker.probe_succeeded(epoch, self.now, 10)
                if how == "succeeded"
                else breaker.probe_failed(epoch, self.now)
            )
            if before != (State.HALF_OPEN, epoch):
                assert not changed
                assert (breaker.state, breaker.epoch) == before
        elif breaker.state is State.CLOSED:
            _ = breaker.succeeded(self.now, 10) if how == "succeeded" else breaker.failed(self.now)
        if breaker.state is State.OPEN and before[0] is not State.OPEN:
            lasts_us = breaker.retry_at_us - self.now
            assert lasts_us >= self.last_opening_us
            assert lasts_us <= self.policy.open_max_s * 1.5 * S
            self.last_opening_us = lasts_us
        if breaker.state is State.CLOSED:
            self.last_opening_us = 0

    @rule(seconds=st.sampled_from([0.1, 1, 5, 20, 100]))
    def time_passes(self, seconds: float) -> None:
        self.now += round(seconds * S)

    @invariant()
    def counts_are_those_of_calls(self) -> None:
        assert 0 <= self.breaker.failures <= self.breaker.calls


TestOneProcess = OneProcess.TestCase
TestOneProcess.settings = QUICK
