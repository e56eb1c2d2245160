"""The fleet's breaker, purely: what a quorum is, who probes, and what a ruling does, whatever order things come in."""

from datetime import datetime, timedelta

from folding import START, event_id, wire
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from relight.engine.policies.fleet_breaker import (
    MAX_VOTE_S,
    FleetPolicy,
    FleetState,
    State,
    decide,
    expecting,
    observe,
    ruling_of,
)
from relight.events.base import Event
from relight.events.breakers import BreakerClosed, BreakerHalfOpened, BreakerOpened, BreakerReset, BreakerTripped
from relight.events.envelope import Recorded

QUICK = settings(max_examples=100, stateful_step_count=40, deadline=None)
POLICY = FleetPolicy(open_s=30, open_max_s=120, lease_s=20)
HOME = {"a": "zone-1", "b": "zone-1", "c": "zone-1", "d": "zone-2", "e": "zone-3"}
Rec = Recorded[Event]


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


_ids = iter(range(10**9))


def recorded(data: Event, seconds: float, rev: int | None = None) -> Rec:
    return wire(data, id=event_id(1_767_225_600_000, next(_ids)), time=at(seconds), rev=rev)[2]


def tripped(process: str, seconds: float, domain: str | None = None) -> Rec:
    return recorded(
        BreakerTripped(
            service_name="api",
            process=process,
            fault_domain=domain or HOME[process],
            reason="5 failures in a row",
            failure_count=5,
            retry_at=at(seconds + 30),
        ),
        seconds,
    )


def reset(process: str, seconds: float) -> Rec:
    return recorded(
        BreakerReset(service_name="api", process=process, fault_domain=HOME[process], reason="answered"), seconds
    )


def folded(*events: Rec) -> FleetState:
    state = FleetState(service_name="api")
    for event in events:
        state = observe(state, event)
    return state


def decided(state: FleetState, seconds: float, caller: str | None = None) -> Event | None:
    return next(iter(decide(state, at(seconds), POLICY, caller=caller)), None)


QUORUM = (tripped("a", 0), tripped("b", 1), tripped("d", 2))


def opened_state() -> tuple[list[Rec], FleetState]:
    ruling = decided(folded(*QUORUM), 3)
    assert ruling is not None
    events = [*QUORUM, recorded(ruling, 3, rev=1)]
    return events, folded(*events)


def test_three_processes_in_two_fault_domains_open_it_and_are_named() -> None:
    assert decided(folded(*QUORUM), 3) == BreakerOpened(
        service_name="api",
        reason="3 processes in 2 fault domains tripped",
        failure_count=15,
        next_retry_at=at(33),
        processes=("a", "b", "d"),
        fault_domains=("zone-1", "zone-2"),
        openings=1,
    )


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 300)), max_size=30), st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_one_fault_domain_alone_never_opens_it_however_many_vote(votes: list[tuple[str, int]], now: int) -> None:
    events = [tripped(f"{process}{n}", second, "zone-1") for n, (process, second) in enumerate(votes)]
    assert decided(folded(*events), now) is None


@given(st.lists(st.tuples(st.sampled_from(["a", "d"]), st.integers(0, 300)), max_size=30), st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_two_processes_never_open_it_however_often_they_vote(votes: list[tuple[str, int]], now: int) -> None:
    assert decided(folded(*(tripped(process, second) for process, second in votes)), now) is None


def test_a_vote_expires_and_may_be_withdrawn() -> None:
    assert decided(folded(*QUORUM), 119) is not None
    assert decided(folded(*QUORUM), 121) is None, "the first two are too old"
    assert decided(folded(*QUORUM, reset("d", 3)), 4) is None
    assert decided(folded(*QUORUM[:2], reset("d", 3), QUORUM[2]), 4) is None, "what was withdrawn came late"


def test_after_its_deadline_it_half_opens_for_whoever_has_a_call_to_make() -> None:
    _, state = opened_state()
    assert decided(state, 32.9, "e") is None
    assert decided(state, 33) is None, "nobody calls"
    assert decided(state, 33, "e") == BreakerHalfOpened(
        service_name="api",
        reason="its time to retry has come",
        failure_count=15,
        opened_at=at(3),
        holder="e",
        lease_until=at(53),
        probes=1,
        openings=1,
    )


def test_whoever_sees_a_quorum_refuses_calls_before_the_ruling_is_written() -> None:
    state = folded(*QUORUM)
    ruling = decided(state, 3)
    assert isinstance(ruling, BreakerOpened)
    waiting = expecting(state, ruling, at(3))
    assert (waiting.state, waiting.rev, waiting.next_retry_at) == (State.OPEN, 0, at(33))
    half_open = half_opened_state()
    assert expecting(half_open, ruling, at(60)) is half_open, "no call passes anyway"


def half_opened_state() -> FleetState:
    events, state = opened_state()
    ruling = decided(state, 40, "e")
    assert ruling is not None
    return folded(*events, recorded(ruling, 40, rev=2))


def test_the_holders_answer_closes_it_and_its_failure_opens_it_for_longer() -> None:
    state = half_opened_state()
    assert decided(state, 41, "a") is None, "one lease at a time"
    assert isinstance(decided(observe(state, reset("e", 42)), 43), BreakerClosed)
    again = decided(observe(state, tripped("e", 42)), 43)
    assert isinstance(again, BreakerOpened)
    assert (again.next_retry_at, again.openings, again.reason) == (at(103), 2, "the probe of e failed")
    assert again.processes == ("a", "b", "d", "e")


def test_only_the_holder_answers_for_its_probes_and_only_with_what_came_after_its_lease() -> None:
    state = half_opened_state()
    for event in (tripped("a", 42), reset("a", 43), tripped("e", 39)):
        state = observe(state, event)
    assert decided(state, 44) is None


def test_an_expired_lease_is_taken_over() -> None:
    taken = decided(half_opened_state(), 60, "a")
    assert isinstance(taken, BreakerHalfOpened)
    assert (taken.holder, taken.reason) == ("a", "e did not use its lease in time")


def test_votes_from_before_it_was_closed_have_had_their_effect() -> None:
    events, _ = opened_state()
    closed = recorded(BreakerClosed(service_name="api", reason="an operator's word"), 50, rev=2)
    late = [tripped(process, 49) for process in "abd"]
    assert decided(folded(*events, closed, *late), 51) is None
    assert decided(folded(*events, closed, *(tripped(process, 51) for process in "abd")), 52) is not None


def test_a_deadline_never_gets_shorter_while_it_is_open() -> None:
    _, state = opened_state()
    shorter = BreakerOpened(service_name="api", reason="somebody's", failure_count=1, next_retry_at=at(10))
    longer = BreakerOpened(service_name="api", reason="somebody's", failure_count=1, next_retry_at=at(90))
    assert observe(state, recorded(shorter, 4, rev=2)).next_retry_at == at(33)
    assert observe(state, recorded(longer, 4, rev=2)).next_retry_at == at(90)


def test_rulings_of_the_first_version_are_understood() -> None:
    opened = BreakerOpened(service_name="api", reason="by hand", failure_count=3, next_retry_at=at(30))
    half = BreakerHalfOpened(service_name="api", reason="by hand", failure_count=3, opened_at=at(0))
    state = folded(recorded(opened, 0, rev=1), recorded(half, 30, rev=2))
    taken = decided(state, 31, "a")
    assert isinstance(taken, BreakerHalfOpened)
    assert taken.holder == "a"


def test_other_breakers_and_older_revisions_change_nothing() -> None:
    _, state = opened_state()
    assert observe(state, recorded(BreakerClosed(service_name="other", reason="x"), 5, rev=9)) == state
    assert observe(state, recorded(BreakerClosed(service_name="api", reason="x"), 5, rev=1)) == state


class AFleet(RuleBasedStateMachine):
    """Processes with clocks of their own, each at its own place of one stream, append by compare-and-set."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.stream: list[Rec] = []
        self.states = [folded()]
        """After so many events of the stream."""
        self.rulings: list[tuple[int, Rec]] = []
        """Of each, how much of the stream it rests on."""
        self.read: dict[str, int] = {}
        self.skew: dict[str, float] = {}

    @initialize(skews=st.lists(st.sampled_from([-2.0, 0.0, 0.5, 3.0]), min_size=5, max_size=5))
    def begin(self, skews: list[float]) -> None:
        self.skew = dict(zip(HOME, skews, strict=True))
        self.read = dict.fromkeys(HOME, 0)

    def append(self, event: Rec) -> None:
        self.stream.append(event)
        self.states.append(observe(self.states[-1], event))

    processes = st.sampled_from(sorted(HOME))

    @rule(process=processes, late_s=st.sampled_from([0, 0, 0, 5, 200]))
    def trips(self, process: str, late_s: float) -> None:
        self.append(tripped(process, self.now + self.skew[process] - late_s))

    @rule(process=processes)
    def resets(self, process: str) -> None:
        self.append(reset(process, self.now + self.skew[process]))

    @rule()
    def all_trip(self) -> None:
        for process in HOME:
            self.trips(process, 0)

    @rule(seconds=st.sampled_from([0.01, 1, 15, 31, 125, 4_000]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(process=processes, events=st.sampled_from([1, 2, 100]))
    def reads(self, process: str, events: int) -> None:
        self.read[process] = min(len(self.stream), self.read[process] + events)

    @rule(process=processes, events=st.sampled_from([0, 100]), calls=st.booleans())
    def rules(self, process: str, events: int, calls: bool) -> None:
        self.reads(process, events)
        seen = self.read[process]
        state, now = self.states[seen], self.now + self.skew[process]
        for ruling in decide(state, at(now), POLICY, caller=process if calls else None):
            if state.rev != len(self.rulings):
                return  # another was first
            self.check(state, ruling)
            event = recorded(ruling, now, rev=state.rev + 1)
            assert ruling_of(self.stream[:seen], event, POLICY) == event.data, "the events give it again"
            self.rulings.append((seen, event))
            self.append(event)

    def check(self, state: FleetState, ruling: Event) -> None:
        match ruling:
            case BreakerOpened():
                assert len({*ruling.processes}) >= 3 or state.state is State.HALF_OPEN
                assert len({HOME[process] for process in ruling.processes}) >= 2 or state.state is State.HALF_OPEN
                opened = [event.data for _, event in self.rulings if isinstance(event.data, BreakerOpened)]
                if state.state is State.HALF_OPEN:
                    assert ruling.next_retry_at > opened[-1].next_retry_at
            case BreakerHalfOpened():
                assert state.state is not State.CLOSED
                assert state.lease_until is None or ruling.lease_until is not None
            case BreakerClosed():
                assert state.state is State.HALF_OPEN
                assert state.answer is not None
                assert state.answer.withdrawn

    @invariant()
    def a_newcomer_decides_as_those_who_saw_all(self) -> None:
        since = at(self.now - MAX_VOTE_S - 60)
        known = [event for event in self.stream if event.rev is None and event.time > since]
        if self.rulings:
            last = self.rulings[-1][1]
            known = [e for e in self.stream if e is last or (e.rev is None and e.time > since)]
        learned = folded(*known)
        for caller in (None, "a"):
            assert decide(learned, at(self.now), POLICY, caller=caller) == decide(
                self.states[-1], at(self.now), POLICY, caller=caller
            )


TestAFleet = AFleet.TestCase
TestAFleet.settings = QUICK
