"""Circuit breakers: rulings win by revision, calls are only remembered."""

from folding import fact, given, id_at, moment

from relight.events.breakers import BreakerClosed, BreakerFailed, BreakerHalfOpened, BreakerOpened, BreakerSucceeded
from relight.projections.breakers import EVENTS, STATES

FAILED = BreakerFailed(service_name="search", error_class="timeout", details={"status": 504})
OPENED = BreakerOpened(service_name="search", reason="quorum", failure_count=5, next_retry_at=moment(60))
HALF_OPENED = BreakerHalfOpened(service_name="search", reason="retry", failure_count=5, opened_at=moment(1))
CLOSED = BreakerClosed(service_name="search", reason="probes passed")


def test_a_ruling_opens_the_breaker_until_its_next_retry() -> None:
    [row] = given(FAILED, OPENED).when(times=2).then(STATES)
    assert (row["state"], row["failure_count"], row["next_retry_at"]) == ("open", 5, moment(60))
    assert (row["opened_at"], row["ruling_rev"], row["ruling_event_id"]) == (moment(2), 1, id_at(2))
    assert (row["last_failure_at"], row["last_error_class"]) == (moment(1), "timeout")


def test_a_breaker_half_opens_and_closes() -> None:
    [half] = given(OPENED, HALF_OPENED).when(times=2).then(STATES)
    assert (half["state"], half["opened_at"], half["next_retry_at"]) == ("half_open", moment(1), None)
    [closed] = given(OPENED, HALF_OPENED, CLOSED).when(times=2).then(STATES)
    assert (closed["state"], closed["failure_count"], closed["opened_at"]) == ("closed", 0, None)


def test_an_opening_of_a_lower_revision_that_arrives_after_the_closing_changes_nothing() -> None:
    late = fact(OPENED, rev=1, tick=9)
    [row] = given(fact(CLOSED, rev=2, tick=1), late).when(times=2).then(STATES)
    assert (row["state"], row["ruling_rev"], row["ruling_event_id"]) == ("closed", 2, id_at(1))


def test_a_failure_that_arrives_late_does_not_replace_a_later_one() -> None:
    later = BreakerFailed(service_name="search", error_class="refused")
    [row] = given(fact(later, tick=2), fact(FAILED, tick=1)).when(times=2).then(STATES)
    assert (row["last_error_class"], row["last_failure_at"]) == ("refused", moment(2))
    assert row["state"] is None


def test_a_success_leaves_no_state_but_its_history() -> None:
    folded = given(BreakerSucceeded(service_name="search", latency_ms=12), FAILED, OPENED).when(times=2)
    assert [row["event_type"] for row in folded.then(EVENTS)] == ["success", "failure", "opened"]
    assert folded.then(EVENTS)[1]["details"] == {"status": 504, "error_class": "timeout"}
    assert given(BreakerSucceeded(service_name="search")).when(times=2).then(STATES) == []


def test_tenants_breakers_of_one_name_are_apart() -> None:
    rows = given(OPENED, fact(OPENED, tenant="beta"), fact(CLOSED, tenant="beta")).when(times=2).then(STATES)
    assert [(row["tenant"], row["state"]) for row in rows] == [("acme", "open"), ("beta", "closed")]
