"""Suspicion as a pure function of when heartbeats came: silence raises it, a slow pace does not."""

import random
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relight.engine.policies.phi_accrual import MAX_PHI, Arrivals, PhiPolicy, heard, phi

S = 1_000_000
POLICY = PhiPolicy()
gaps = st.lists(st.integers(1, 30 * S), max_size=60)


def after(gaps_us: list[int], policy: PhiPolicy = POLICY) -> Arrivals:
    arrivals = Arrivals(last_us=0)
    for moment in accumulate(gaps_us):
        arrivals = heard(arrivals, moment, policy)
    return arrivals


def silence_until_suspected_s(arrivals: Arrivals, policy: PhiPolicy = POLICY) -> float:
    step_us = S // 100
    for n in range(1, 100_000):
        if phi(arrivals, arrivals.last_us + n * step_us, policy) >= policy.threshold:
            return n * step_us / S
    raise AssertionError("never suspected")


@given(gaps, st.lists(st.integers(0, 100 * S), min_size=2, max_size=10))
def test_phi_never_falls_while_nothing_comes_and_is_always_a_number_that_json_has(
    gaps_us: list[int], silences_us: list[int]
) -> None:
    arrivals = after(gaps_us)
    found = [phi(arrivals, arrivals.last_us + silent_us, POLICY) for silent_us in sorted(silences_us)]
    assert all(before <= later for before, later in pairwise(found))
    assert all(0 <= one <= MAX_PHI for one in found)


@given(gaps)
def test_whatever_came_before_a_silence_is_noticed_within_a_bounded_time(gaps_us: list[int]) -> None:
    arrivals = after(gaps_us)
    mean_s = arrivals.total_us / max(1, len(arrivals.intervals_us)) / S
    bound_s = max(mean_s, POLICY.expected_s) + POLICY.pause_s + 6 * POLICY.deviation_max_s
    assert phi(arrivals, arrivals.last_us + round(bound_s * S), POLICY) >= POLICY.threshold


@given(gaps)
def test_the_sums_are_those_of_the_window(gaps_us: list[int]) -> None:
    arrivals = after(gaps_us, PhiPolicy(window=7))
    assert len(arrivals.intervals_us) <= 7
    assert arrivals.total_us == sum(arrivals.intervals_us)
    assert arrivals.squares_us == sum(one**2 for one in arrivals.intervals_us)


@given(gaps, st.integers(-S, 0))
def test_a_clock_that_stands_or_goes_back_changes_nothing(gaps_us: list[int], back_us: int) -> None:
    arrivals = after(gaps_us)
    assert heard(arrivals, arrivals.last_us + back_us, POLICY) == arrivals
    assert phi(arrivals, arrivals.last_us + back_us, POLICY) < 1


def test_a_steady_sender_is_suspected_after_less_than_three_seconds() -> None:
    assert 2.0 < silence_until_suspected_s(after([S // 2] * 100)) < 3.0


@pytest.mark.parametrize("seed", range(5))
def test_a_sender_that_is_up_to_a_second_late_and_loses_a_fifth_is_suspected_almost_never_and_never_for_long(
    seed: int,
) -> None:
    chance = random.Random(seed)
    arrived = sorted(
        n * S // 2 + round(chance.uniform(0, 1) * S) for n in range(1, 7_200) if chance.random() > 0.2
    )  # an hour
    arrivals, suspected_us = Arrivals(last_us=0), []
    for moment in arrived:
        missing_us = moment - arrivals.last_us
        if phi(arrivals, moment, POLICY) >= POLICY.threshold:
            suspected_us.append(missing_us)
        arrivals = heard(arrivals, moment, POLICY)
    assert len(suspected_us) <= 1
    assert silence_until_suspected_s(arrivals) < 5


def test_a_silence_that_was_suspected_does_not_hide_the_next_one() -> None:
    steady = after([S // 2] * 100)
    again = heard(steady, steady.last_us + 60 * S, POLICY)
    assert silence_until_suspected_s(again) == silence_until_suspected_s(steady)


def test_a_burst_of_late_heartbeats_makes_nobody_expect_more_than_the_sender_sends() -> None:
    burst = after([S // 2] * 10 + [1_000] * 200)
    assert silence_until_suspected_s(burst) == pytest.approx(silence_until_suspected_s(after([S // 2] * 100)), abs=0.05)
