"""What follows a failed attempt: exact waits, and never past a deadline or after a delta."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relight.engine.guard.facts import Failure
from relight.engine.policies.retry import (
    DELIVERED,
    EXHAUSTED,
    NOT_REPEATABLE,
    NOT_RETRIED,
    OVERLOADED,
    PAST_DEADLINE,
    RATE_LIMITED,
    REFUSED,
    RETRIED,
    Failed,
    GiveUp,
    RetryOptions,
    Wait,
    after,
)

EXACT = RetryOptions(jitter=0)
FAILURES = st.sampled_from([failure.value for failure in Failure])
ASKED = st.none() | st.floats(min_value=-10, max_value=100_000, allow_nan=False)


def failed(failure: str, attempts: int = 1, overloads: int = 0, **more: object) -> Failed:
    told: dict[str, object] = {"left_s": 600.0, **more}
    return Failed(failure=failure, attempts=attempts, overloads=overloads, **told)  # type: ignore[arg-type]


def test_every_failure_that_is_retried_is_one_that_attempts_have() -> None:
    assert {Failure(name) for name in RETRIED}
    assert {RATE_LIMITED, OVERLOADED} <= RETRIED


def test_four_retries_come_after_exactly_1_2_4_and_8_seconds() -> None:
    decided = [after(EXACT, failed("server_error", number)) for number in range(1, 6)]
    assert decided == [Wait(1), Wait(2), Wait(4), Wait(8), EXHAUSTED]


def test_overload_is_counted_for_itself_and_waits_longer() -> None:
    decided = [after(EXACT, failed(OVERLOADED, number, number)) for number in range(1, 8)]
    assert decided == [Wait(2), Wait(4), Wait(8), Wait(16), Wait(32), Wait(60), EXHAUSTED]
    assert after(EXACT, failed("server_error", 4, 3)) == Wait(1)


def test_a_rate_limit_waits_a_minute_unless_the_server_says_how_long() -> None:
    assert after(EXACT, failed(RATE_LIMITED)) == Wait(60)
    assert after(EXACT, failed(RATE_LIMITED, asked_s=7.5)) == Wait(7.5)
    assert after(EXACT, failed(RATE_LIMITED, asked_s=0)) == Wait(1)
    assert after(EXACT, failed(RATE_LIMITED, left_s=59.0)) == PAST_DEADLINE


def test_what_the_server_asks_for_is_waited_only_within_the_deadline() -> None:
    assert after(EXACT, failed("server_error", asked_s=30, left_s=31)) == Wait(30)
    assert after(EXACT, failed("server_error", asked_s=86_400)) == PAST_DEADLINE


def test_the_server_says_whether_another_attempt_is_of_use() -> None:
    assert after(EXACT, failed("server_error", should_retry=False)) == REFUSED
    assert after(EXACT, failed("invalid_request", should_retry=True)) == Wait(1)


@pytest.mark.parametrize("failure", sorted({str(failure) for failure in Failure} - RETRIED))
def test_what_another_attempt_cannot_mend_is_given_up(failure: str) -> None:
    assert after(EXACT, failed(failure)) == NOT_RETRIED


def test_a_body_that_can_be_sent_once_is_sent_once() -> None:
    assert after(EXACT, failed("connection", repeatable=False)) == NOT_REPEATABLE


@given(FAILURES, st.integers(1, 50), ASKED, st.none() | st.booleans(), st.floats(0, 0.999))
def test_never_after_a_delta(
    failure: str, attempts: int, asked_s: float | None, should_retry: bool | None, chance: float
) -> None:
    told = failed(failure, attempts, asked_s=asked_s, should_retry=should_retry, delta_handed_out=True)
    assert after(RetryOptions(), told, chance=chance) == DELIVERED


@given(
    st.lists(st.tuples(FAILURES, ASKED, st.none() | st.booleans(), st.floats(0, 0.999)), min_size=60, max_size=60),
    st.floats(min_value=0, max_value=2_000),
    st.integers(0, 8),
    st.integers(0, 8),
    st.floats(0, 1),
)
def test_waits_end_before_the_deadline_and_attempts_are_bounded(
    story: list[tuple[str, float | None, bool | None, float]],
    deadline_s: float,
    retries: int,
    overload_retries: int,
    jitter: float,
) -> None:
    options = RetryOptions(retries=retries, overload_retries=overload_retries, jitter=jitter)
    spent_s, overloads, attempts = 0.0, 0, 0
    for failure, asked_s, should_retry, chance in story:
        attempts += 1
        overloads += failure == OVERLOADED
        told = failed(
            failure, attempts, overloads, asked_s=asked_s, should_retry=should_retry, left_s=deadline_s - spent_s
        )
        decided = after(options, told, chance=chance)
        if isinstance(decided, GiveUp):
            break
        assert decided.seconds >= (asked_s or 0)
        spent_s += decided.seconds
        assert spent_s <= deadline_s
    assert attempts <= options.attempts


@given(st.integers(1, 4), st.floats(0, 0.999), st.floats(0, 1))
def test_jitter_takes_no_more_than_its_share(attempts: int, chance: float, jitter: float) -> None:
    full_s = (1, 2, 4, 8)[attempts - 1]
    decided = after(RetryOptions(jitter=jitter), failed("server_error", attempts), chance=chance)
    assert isinstance(decided, Wait)
    assert full_s * (1 - jitter) <= decided.seconds <= full_s
