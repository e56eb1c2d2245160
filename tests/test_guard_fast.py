"""What a call that works leaves out must not be missed: the counts of rooms and breakers without a lock."""

from concurrent.futures import ThreadPoolExecutor

from relight.engine.guard.breakers.breaker import Breaker
from relight.engine.guard.breakers.permits import CLOSED
from relight.engine.policies.breaker import BreakerPolicy
from relight.engine.recorder.room import Room
from relight.events.base import Event

T0 = 1_790_000_000_000_000


class Alone:
    """A process without a fleet."""

    process = "p"
    fault_domain = "d"
    joined = True

    def __init__(self) -> None:
        self.us = T0
        self.recorded: list[Event] = []

    def now_us(self) -> int:
        return self.us

    def join(self) -> None: ...

    def ask(self, name: str) -> None: ...

    def record(self, event: Event) -> None:
        self.recorded.append(event)


def breaker(circle: Alone, **policy: object) -> Breaker:
    return Breaker("m", BreakerPolicy.model_validate({"fleet": None, "jitter": 0, **policy}), circle)


def answer(of: Breaker, circle: Alone, times: int) -> None:
    for _ in range(times):
        permit = of.permit(circle.us)
        assert permit is CLOSED
        of.succeeded(permit, 1_000, circle.us)


def fail(of: Breaker, circle: Alone, times: int) -> None:
    for _ in range(times):
        of.failed(CLOSED)


def test_answers_that_were_only_counted_are_measured_against_failures() -> None:
    circle = Alone()
    share = breaker(circle, consecutive_failures=None, failure_rate=0.5, minimum_calls=10)
    answer(share, circle, 10)
    fail(share, circle, 9)
    assert not circle.recorded
    fail(share, circle, 1)
    assert "10 of 20 calls failed" in circle.recorded[0].model_dump()["reason"]


def test_an_answer_between_failures_ends_their_row() -> None:
    circle = Alone()
    row = breaker(circle, consecutive_failures=3, failure_rate=0.99)
    for _ in range(5):
        answer(row, circle, 2)
        fail(row, circle, 2)
    assert not circle.recorded
    fail(row, circle, 1)
    assert "3 failures in a row" in circle.recorded[0].model_dump()["reason"]


def test_answers_leave_the_window_with_their_time() -> None:
    circle = Alone()
    share = breaker(circle, consecutive_failures=None, failure_rate=0.5, minimum_calls=4, window_s=10)
    answer(share, circle, 100)
    circle.us += 11_000_000
    fail(share, circle, 4)
    assert "4 of 4 calls failed" in circle.recorded[0].model_dump()["reason"]


def test_events_to_be_made_are_counted_from_all_threads_and_let_in_up_to_the_cap() -> None:
    room = Room(max_waiting_events=200_000, max_bytes=10**10, exposed={})

    def come(_: int) -> int:
        return sum(1 for _ in range(30_000) if room.expect(1) is None)

    with ThreadPoolExecutor(8) as pool:
        let_in = sum(pool.map(come, range(8)))
    assert room.waiting_events == let_in
    assert 200_000 <= let_in <= 200_000 + 8
    room.expected(let_in)
    assert room.waiting_events == 0
