"""Who is cut off, as a pure machine: a quorum of regions rules, a minority never, in whatever order votes come."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from folding import START, event_id, wire
from hypothesis import given, settings
from hypothesis import strategies as st

from relight.engine.policies.isolation import (
    DomainState,
    IsolationPolicy,
    Ruled,
    State,
    decide,
    due_at,
    observe,
    ruling_of,
)
from relight.events.base import Event
from relight.events.envelope import PLATFORM, Recorded
from relight.events.faults import (
    DomainType,
    FaultDetected,
    FaultIsolated,
    FaultRecovered,
    FaultRecovering,
    FaultSuspected,
    FaultTrusted,
)

THREE = ("ap", "eu", "us")
POLICY = IsolationPolicy.of(THREE, for_s=2, steady_s=5, vote_s=30)
NONE = DomainState(domain_type=DomainType.REGION, domain_identifier="us")


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def recorded(data: Event, seconds: float, ordinal: int = 0, rev: int | None = None) -> Recorded[Event]:
    id = event_id(round(at(seconds).timestamp() * 1_000), ordinal)
    return wire(data, id=id, time=at(seconds), tenant=PLATFORM, rev=rev)[2]


def vote(
    region: str,
    seconds: float,
    *,
    suspects: bool = True,
    since: float | None = None,
    observer: str | None = None,
    of: str = "us",
    kind: DomainType = DomainType.REGION,
    ordinal: int | None = None,
) -> Recorded[Event]:
    said: dict[str, Any] = {
        "domain_type": kind,
        "domain_identifier": of,
        "observer": observer or region,
        "observer_region": region,
        "phi": 9.5 if suspects else 0,
        "silent_ms": 3_200 if suspects else 100,
        "since": at(seconds if since is None else since),
    }
    data = FaultSuspected(**said) if suspects else FaultTrusted(**said)
    return recorded(data, seconds, sum(region.encode()) if ordinal is None else ordinal)


class Domain:
    """Folds, decides as time passes, and rules what was decided."""

    def __init__(self, policy: IsolationPolicy = POLICY, state: DomainState = NONE) -> None:
        self.policy, self.state = policy, state
        self.events: list[Recorded[Event]] = []
        self.rulings: list[Recorded[Event]] = []

    def see(self, *events: Recorded[Event]) -> "Domain":
        for event in events:
            self.state = observe(self.state, event)
            self.events.append(event)
        return self

    def rules(self, seconds: float) -> list[type[Ruled]]:
        """All that is ruled at this moment."""
        found = []
        while ruled := decide(self.state, at(seconds), self.policy):
            [ruling] = ruled
            event = recorded(ruling, seconds, 900 + self.state.rev, self.state.rev + 1)
            self.rulings.append(event)
            self.see(event)
            found.append(type(ruling))
        return found


def isolated() -> Domain:
    domain = Domain().see(vote("eu", 1), vote("ap", 1.5))
    assert domain.rules(1.5) == [FaultDetected]
    assert domain.rules(3.5) == [FaultIsolated]
    return domain


def test_a_region_that_a_majority_misses_is_detected_and_then_isolated_and_the_ruling_says_why() -> None:
    domain = Domain().see(vote("eu", 1))
    assert domain.rules(1) == []
    domain.see(vote("ap", 1.5))
    assert domain.rules(1.5) == [FaultDetected]
    assert due_at(domain.state, at(1.5), POLICY) == at(3.5)
    assert domain.rules(3.4) == []
    assert domain.rules(3.5) == [FaultIsolated]
    ruling = domain.rulings[-1].data
    assert isinstance(ruling, FaultIsolated)
    assert ruling.model_dump(exclude={"scope", "domain_type", "domain_identifier"}) == {
        "cause": "ap and eu heard nothing of it for 3.2 s",
        "cascading_risk": None,
        "confidence": 1.0,
        "voters": ("ap", "eu"),
        "voter_regions": ("ap", "eu"),
        "phi": 9.5,
        "detected_at": at(1.5),
    }


def test_votes_that_come_late_isolate_a_moment_after_the_detection_and_not_if_they_are_taken_back() -> None:
    domain = Domain().see(vote("eu", 1), vote("ap", 1.5))
    assert domain.rules(9) == [FaultDetected], "nothing could be ruled before: an election"
    assert domain.rules(9.4) == []
    back = Domain(state=domain.state).see(vote("ap", 8, suspects=False))
    assert back.rules(9.5) == []
    assert domain.rules(9.5) == [FaultIsolated]


def test_a_fault_that_goes_away_before_the_isolation_is_over_once_nobody_missed_it_for_a_while() -> None:
    domain = Domain().see(vote("eu", 1), vote("ap", 1.5))
    domain.rules(1.5)
    domain.see(vote("ap", 2, suspects=False))
    assert domain.rules(4) == []
    assert due_at(domain.state, at(4), POLICY) == at(7)
    assert domain.rules(7) == [FaultRecovered]
    ruling = domain.rulings[-1].data
    assert isinstance(ruling, FaultRecovered)
    assert (ruling.detected_at, ruling.isolated_at) == (at(1.5), None)


def test_votes_that_were_taken_back_and_given_again_have_to_last_anew() -> None:
    domain = Domain().see(vote("eu", 1), vote("ap", 1.5))
    domain.rules(1.5)
    domain.see(vote("ap", 2, suspects=False), vote("ap", 3))
    assert domain.rules(3.9) == []
    assert domain.rules(5) == [FaultIsolated]


def test_an_isolated_region_that_a_majority_hears_again_recovers_in_steps() -> None:
    domain = isolated().see(vote("eu", 60, suspects=False))
    assert domain.rules(61) == [], "one does not do"
    domain.see(vote("ap", 61, suspects=False))
    assert domain.rules(61) == [FaultRecovering]
    assert domain.rules(65) == []
    assert domain.rules(66) == [FaultRecovered]
    recovered = domain.rulings[-1].data
    assert isinstance(recovered, FaultRecovered)
    assert (recovered.detected_at, recovered.isolated_at) == (at(1.5), at(3.5))
    assert recovered.isolation_reason == "ap and eu heard nothing of it for 3.2 s"
    assert domain.state.state is State.HEALTHY


def test_a_region_that_falls_silent_while_it_recovers_is_isolated_again() -> None:
    domain = isolated().see(vote("eu", 60, suspects=False), vote("ap", 60, suspects=False))
    assert domain.rules(60) == [FaultRecovering]
    domain.see(vote("eu", 62), vote("ap", 63))
    assert domain.rules(63) == [FaultIsolated]


def test_an_isolated_region_that_nobody_hears_stays_so_however_old_the_votes_are() -> None:
    domain = isolated()
    assert domain.rules(3_600) == []
    assert domain.state.state is State.ISOLATED


def test_what_was_heard_before_the_isolation_lets_nobody_in_again() -> None:
    domain = Domain(IsolationPolicy.of(("a", "b", "c", "d", "us")))
    domain.see(*(vote(region, 0.5, suspects=False) for region in "abcd"))
    domain.see(*(vote(region, 1) for region in "abc"))
    assert domain.rules(1) == [FaultDetected]
    assert domain.rules(3) == [FaultIsolated]
    domain.see(vote("a", 4, suspects=False), vote("b", 4, suspects=False))
    assert domain.rules(4) == [], "d last said so before"
    domain.see(vote("d", 5, suspects=False))
    assert domain.rules(5) == [FaultRecovering]


def test_a_vote_that_nobody_says_again_grows_old() -> None:
    domain = Domain().see(vote("eu", 1), vote("ap", 32))
    assert domain.rules(32) == []
    assert domain.state.suspecting(at(30), POLICY) != []


def test_one_region_that_goes_on_missing_it_does_not_keep_it_from_recovering() -> None:
    domain = Domain().see(vote("eu", 1), vote("ap", 1.5))
    domain.rules(1.5)
    domain.see(vote("ap", 2, suspects=False), vote("eu", 6.9, since=1))
    assert domain.rules(7) == [FaultRecovered]


def test_a_region_has_no_vote_on_itself_and_strangers_have_none() -> None:
    domain = Domain().see(vote("eu", 1), vote("us", 1), vote("mars", 1))
    assert domain.rules(10) == []


def test_many_observers_of_one_region_have_one_vote() -> None:
    domain = Domain().see(vote("eu", 1), vote("eu", 1, observer="eu-2"), vote("eu", 1, observer="eu-3"))
    assert domain.rules(10) == []


def test_of_two_regions_none_rules_on_the_other() -> None:
    domain = Domain(IsolationPolicy.of(("eu", "us"))).see(vote("eu", 1))
    assert domain.rules(10) == []


def test_on_a_worker_its_own_region_votes_too() -> None:
    worker = DomainState(domain_type=DomainType.ENGINE, domain_identifier="w-1")
    domain = Domain(state=worker)
    domain.see(*(vote(region, 1, of="w-1", kind=DomainType.ENGINE) for region in ("us", "eu")))
    assert domain.rules(1) == [FaultDetected]
    assert domain.rules(3) == [FaultIsolated]


def test_what_was_isolated_by_order_is_not_let_in_by_votes() -> None:
    order = FaultIsolated(domain_type=DomainType.REGION, domain_identifier="us", cause="works", scope="all")
    domain = Domain().see(recorded(order, 1, rev=1))
    domain.see(vote("eu", 2, suspects=False), vote("ap", 2, suspects=False))
    assert domain.rules(100) == []


votes = st.builds(
    vote,
    st.sampled_from((*THREE, "mars")),
    st.integers(0, 60).map(float),
    suspects=st.booleans(),
    observer=st.sampled_from((None, "x", "y")),
    ordinal=st.just(0),
)


def distinct(events: Sequence[Recorded[Event]]) -> list[Recorded[Event]]:
    """No two events have one id."""
    return [
        event.model_copy(update={"id": event_id(round(event.time.timestamp() * 1_000), n)})
        for n, event in enumerate(events)
    ]


@settings(deadline=None)
@given(st.lists(votes, max_size=12).map(distinct), st.data())
def test_any_order_and_repetition_of_votes_gives_the_same_state_and_the_same_rulings(
    events: list[Recorded[Event]], data: st.DataObject
) -> None:
    again = data.draw(st.lists(st.sampled_from(events), max_size=5)) if events else []
    shuffled = data.draw(st.permutations([*events, *again]))
    one, other = Domain().see(*events), Domain().see(*shuffled)
    assert dict(one.state.votes) == dict(other.state.votes)
    for seconds in (0, 1, 30, 59, 61, 90):
        assert decide(one.state, at(seconds), POLICY) == decide(other.state, at(seconds), POLICY)


@settings(deadline=None)
@given(
    st.lists(st.tuples(votes, st.integers(0, 3)), max_size=40),
    st.sampled_from((THREE, ("eu", "us"), ("ap", "eu", "us", "sa", "af"))),
)
def test_no_minority_ever_isolates_anybody_and_every_ruling_follows_from_what_it_names(
    steps: list[tuple[Recorded[Event], int]], regions: tuple[str, ...]
) -> None:
    domain = Domain(IsolationPolicy.of(regions, for_s=2, steady_s=5, vote_s=30))
    now = 0.0
    for event, (_, pause) in zip(distinct([event for event, _ in steps]), steps, strict=True):
        now = max(now + pause, (event.time - START).total_seconds())
        before = list(domain.events)
        domain.see(event)
        domain.rules(now)
        for ruling in domain.rulings:
            if ruling in before or not isinstance(ruling.data, FaultDetected | FaultIsolated | FaultRecovering):
                continue
            named = set(ruling.data.voter_regions or ())
            assert len(named) >= domain.policy.quorum > len(regions) / 2
            assert named <= set(regions) - {"us"}
            behind = domain.events[: domain.events.index(ruling)]
            assert ruling_of(behind, ruling, domain.policy) == ruling.data
    states = [type(ruling.data) for ruling in domain.rulings]
    followed = {
        None: {FaultDetected},
        FaultDetected: {FaultIsolated, FaultRecovered},
        FaultIsolated: {FaultRecovering},
        FaultRecovering: {FaultIsolated, FaultRecovered},
        FaultRecovered: {FaultDetected},
    }
    assert all(later in followed[before] for before, later in zip([None, *states], states, strict=False))


@pytest.mark.parametrize(("regions", "quorum"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (7, 4)])
def test_a_quorum_is_more_than_half_of_all_regions(regions: int, quorum: int) -> None:
    assert IsolationPolicy.of([f"r{n}" for n in range(regions)]).quorum == quorum
