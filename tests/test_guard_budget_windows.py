"""Windows of limits, purely: calls come, hold something, and end some time later having taken that, less or more."""

from dataclasses import dataclass

from budgeting import NOON_US, SECOND_US
from hypothesis import given
from hypothesis import strategies as st

from relight.engine.policies.budget import Amounts, Limit, Per, Spending, Window


@dataclass(frozen=True)
class Ran:
    """A call: when it asked, what it held and took, and how long it ran."""

    after_s: float
    held: int
    share: float
    ran_s: float


RAN = st.builds(
    Ran,
    after_s=st.floats(0, 50),
    held=st.integers(0, 120),
    share=st.floats(0, 1.5),
    ran_s=st.floats(0, 100),
)


def play(limit: Limit, calls: list[Ran]) -> tuple[list[tuple[int, int]], int]:
    """What was spent when, and by how much the calls at hand at any one time went beyond what they held."""
    spending = Spending(limit)
    spent: list[tuple[int, int]] = []
    ends: list[tuple[int, Ran]] = []
    now_us, beyond = NOON_US, 0
    for call in [*calls, Ran(1_000, 0, 0, 0)]:
        now_us += round(call.after_s * SECOND_US)
        for end_us, ended in sorted((e for e in ends if e[0] <= now_us), key=lambda e: e[0]):
            took = round(ended.held * ended.share)
            spending.release(Amounts(ended.held))
            spending.spend(Amounts(took), end_us)
            spent.append((end_us, took))
            beyond += max(0, took - ended.held)
        ends = [e for e in ends if e[0] > now_us]
        asked = Amounts(call.held)
        if spending.short(asked, now_us) is None:
            spending.reserve(asked)
            ends.append((now_us + round(call.ran_s * SECOND_US), call))
        elif (free_us := spending.free_at_us(asked, "tokens", now_us)) is not None:
            assert free_us > now_us
    return spent, beyond


@given(st.lists(RAN, max_size=30))
def test_no_sliding_window_holds_more_than_its_limit_and_what_calls_took_beyond_their_hold(calls: list[Ran]) -> None:
    spent, beyond = play(Limit(tokens=300, per=Per.MINUTE), calls)
    for end_us, _ in spent:
        within = sum(took for at_us, took in spent if end_us - Per.MINUTE.us < at_us <= end_us)
        assert within <= 300 + beyond


@given(st.lists(RAN, max_size=30))
def test_no_full_minute_holds_more_than_its_limit_and_what_calls_took_beyond_their_hold(calls: list[Ran]) -> None:
    spent, beyond = play(Limit(tokens=300, per=Per.MINUTE, window=Window.FIXED), calls)
    for minute in {at_us // Per.MINUTE.us for at_us, _ in spent}:
        assert sum(took for at_us, took in spent if at_us // Per.MINUTE.us == minute) <= 300 + beyond


@given(st.lists(RAN, max_size=30))
def test_a_limit_in_all_is_kept_for_ever(calls: list[Ran]) -> None:
    spent, beyond = play(Limit(tokens=300), calls)
    assert sum(took for _, took in spent) <= 300 + beyond


@given(st.lists(st.tuples(st.integers(1, 40), st.floats(0, 30)), min_size=1, max_size=20), st.integers(1, 100))
def test_what_is_said_to_fit_then_does(steps: list[tuple[int, float]], wanted: int) -> None:
    for window in Window:
        spending = Spending(Limit(tokens=100, per=Per.MINUTE, window=window))
        now_us = NOON_US
        for tokens, after_s in steps:
            spending.spend(Amounts(tokens), now_us)
            now_us += round(after_s * SECOND_US)
        if spending.short(Amounts(wanted), now_us) is not None:
            free_us = spending.free_at_us(Amounts(wanted), "tokens", now_us)
            assert free_us is not None
            assert spending.short(Amounts(wanted), free_us - 1) is not None
            assert spending.short(Amounts(wanted), free_us) is None


def test_what_everybody_spent_counts_until_the_window_has_passed_and_ones_own_not_twice() -> None:
    spending = Spending(Limit(tokens=100, per=Per.MINUTE))
    spending.follow()
    spending.spend(Amounts(10), NOON_US)
    spending.spend(Amounts(5), NOON_US + 20 * SECOND_US)
    spending.known_until(Amounts(40), NOON_US + 10 * SECOND_US)  # 10 of them are ours
    assert spending.used(NOON_US + 21 * SECOND_US).tokens == 45
    spending.known_until(Amounts(50), NOON_US + 30 * SECOND_US)
    assert spending.used(NOON_US + 31 * SECOND_US).tokens == 50
    assert spending.used(NOON_US + 95 * SECOND_US).tokens == 0
    spending.known_until(Amounts(0), NOON_US + 100 * SECOND_US)
    spending.spend(Amounts(7), NOON_US + 100 * SECOND_US)
    assert spending.used(NOON_US + 101 * SECOND_US).tokens == 7
