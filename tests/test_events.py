"""Events as bytes on subjects: which are refused and why, and that no value makes another subject."""

import orjson
import pytest
from folding import Wire, id_at, moment, wire
from hypothesis import given
from hypothesis import strategies as st
from strategies import event_lists

from relight.events.breakers import BreakerClosed, BreakerFailed
from relight.events.catalog import CLOCK_TOLERANCE_MS, decode, decode_message, id_ms
from relight.events.decisions import DecisionOutcomeKnown
from relight.events.errors import Reason, Undecodable
from relight.events.faults import DomainType, FaultDetected
from relight.events.subjects import control_subject, observation_subject, token

OUTCOME_V1 = (
    b'{"specversion":"1.0","id":"019b7636-2000-7000-8000-000000000001","source":"relight://eu/test",'
    b'"type":"decisions.outcome_known","subject":"d-1","time":"2026-01-01T00:00:00.000000Z","tenant":"acme",'
    b'"region":"eu","dataversion":1,"publisher":"p","pseq":"1","prev":"' + b"0" * 64 + b'",'
    b'"data":{"decision":"d-1","outcome":"success","input_tokens":10,"cost_usd":"0.30"}}'
)


def observation() -> Wire:
    return wire(BreakerFailed(service_name="p"), id=id_at(0), time=moment(0))


def ruling() -> Wire:
    return wire(BreakerClosed(service_name="p", reason="well"), id=id_at(0), time=moment(0), rev=4)


def changed(event: Wire, **attributes: object) -> bytes:
    """The event's document with other attributes; `...` leaves one out."""
    document = {**orjson.loads(event[1]), **attributes}
    return orjson.dumps({name: value for name, value in document.items() if value is not ...})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", Reason.NOT_AN_EVENT),
        (b"\xff", Reason.NOT_AN_EVENT),
        (b"[]", Reason.NOT_AN_EVENT),
        (b"{}", Reason.NOT_AN_EVENT),
        (b"[" * 100_000, Reason.NOT_AN_EVENT),
        (changed(observation(), specversion="0.3"), Reason.NOT_AN_EVENT),
        (changed(observation(), type="breakers.exploded"), Reason.UNKNOWN_TYPE),
        (changed(observation(), type=...), Reason.UNKNOWN_TYPE),
        (changed(observation(), type=["breakers.failed"]), Reason.UNKNOWN_TYPE),
        (changed(observation(), dataversion=2), Reason.FUTURE_VERSION),
        (changed(observation(), dataversion=0), Reason.INVALID),
        (changed(observation(), dataversion="1"), Reason.INVALID),
        (changed(observation(), dataversion=...), Reason.INVALID),
        (changed(observation(), id="019b7636-2000-4000-8000-000000000001"), Reason.INVALID),
        (changed(observation(), id=id_at(0).upper().replace("0", "A")), Reason.INVALID),
        (changed(observation(), time="2026-01-01T00:00:00"), Reason.INVALID),
        (changed(observation(), tenant=""), Reason.INVALID),
        (changed(observation(), tenant="t" * 65), Reason.INVALID),
        (changed(observation(), pseq="0"), Reason.INVALID),
        (changed(observation(), prev="0" * 63), Reason.INVALID),
        (changed(observation(), traceparent="00-1-2-03"), Reason.INVALID),
        (changed(observation(), causationid="x"), Reason.INVALID),
        (changed(observation(), data=...), Reason.INVALID),
        (changed(observation(), data={}), Reason.INVALID),
        (changed(observation(), data={"service_name": "p", "more": 1}), Reason.INVALID),
        (changed(observation(), subject="q"), Reason.INVALID),
        (changed(observation(), rev="1"), Reason.INVALID),
        (changed(ruling(), rev=...), Reason.INVALID),
        (changed(ruling(), rev="5"), Reason.INVALID),
        (changed(ruling(), policy="isolation"), Reason.INVALID),
        (changed(ruling(), decidedat=...), Reason.INVALID),
        (changed(ruling(), publisher="p"), Reason.INVALID),
        (changed(ruling(), tenant="other"), Reason.INVALID),
        (OUTCOME_V1.replace(b'"0.30"', b'"thirty"'), Reason.INVALID),
        (OUTCOME_V1.replace(b'"0.30"', b"NaN"), Reason.NOT_AN_EVENT),
        (OUTCOME_V1.replace(b'"0.30"', b"-1"), Reason.INVALID),
        (OUTCOME_V1.replace(b'"data":{', b'"data":[],"x":{'), Reason.INVALID),
    ],
)
def test_bytes_that_are_no_event_are_refused_with_their_reason(body: bytes, reason: Reason) -> None:
    with pytest.raises(Undecodable) as refused:
        decode(body)
    assert refused.value.reason is reason


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
def test_a_time_that_utc_cannot_hold_is_refused_like_any_other(time: str) -> None:
    with pytest.raises(Undecodable):
        decode(changed(observation(), time=time))


def test_the_detail_names_the_field_and_not_its_value() -> None:
    secret = changed(observation(), data={"service_name": "p", "details": "hunter2"})
    with pytest.raises(Undecodable, match=r"data\.details: ") as refused:
        decode(secret)
    assert "hunter2" not in refused.value.detail


def test_an_event_on_another_subject_than_its_own_is_refused() -> None:
    for _, body, event in (observation(), ruling()):
        assert decode_message(event.nats_subject, body, id_ms(event.id)) == event
        with pytest.raises(Undecodable) as refused:
            decode_message(event.nats_subject + "x", body, id_ms(event.id))
        assert refused.value.reason is Reason.SUBJECT_MISMATCH


def test_an_id_too_far_ahead_of_the_streams_clock_is_refused() -> None:
    subject, body, event = observation()
    assert decode_message(subject, body, id_ms(event.id) - CLOCK_TOLERANCE_MS) == event
    with pytest.raises(Undecodable) as refused:
        decode_message(subject, body, id_ms(event.id) - CLOCK_TOLERANCE_MS - 1)
    assert refused.value.reason is Reason.CLOCK_AHEAD


@given(event_lists(max_more=0))
def test_what_is_encoded_is_decoded_to_the_same_fact(events: list[Wire]) -> None:
    for subject, body, event in events:
        assert decode(body).data == event.data == type(event.data).model_validate_json(event.data.model_dump_json())
        assert event.nats_subject == subject


INJECTIONS = [
    "a.b",
    "*",
    ">",
    "a b",
    "a\tb",
    "ü",
    "日本",
    "%2E",
    "%",
    "a%2Eb",
    ".",
    "..",
    "$SYS",
    "-",
    "_",
    "~",
    "e\u0301",
    "é",
]


@pytest.mark.parametrize("value", INJECTIONS)
def test_no_value_changes_the_number_of_tokens(value: str) -> None:
    assert len(observation_subject(value, "breakers.failed", value).split(".")) == 5
    assert len(control_subject("breaker", value, value).split(".")) == 4
    assert token(value).isascii()
    assert not set(token(value)) & set(".*> \t")


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1) | st.sampled_from(INJECTIONS),
    st.sampled_from(INJECTIONS),
)
def test_different_values_never_give_the_same_token(one: str, other: str) -> None:
    assert (token(one) == token(other)) == (one == other)


@given(*(st.tuples(st.sampled_from(INJECTIONS), st.sampled_from(INJECTIONS)) for _ in range(2)))
def test_different_pairs_never_give_the_same_subject(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (control_subject("breaker", *one) == control_subject("breaker", *other)) == (one == other)
    subjects = [observation_subject(region, "breakers.failed", tenant) for region, tenant in (one, other)]
    assert (subjects[0] == subjects[1]) == (one == other)


def test_a_fault_domains_entity_tells_its_type_from_its_identifier() -> None:
    def entity(type: DomainType, identifier: str) -> str:
        return FaultDetected(domain_type=type, domain_identifier=identifier, cause="", scope="").entity

    assert entity(DomainType.REGION, "eu:1") == "region:eu:1"
    assert entity(DomainType.REGION, "engine:1") != entity(DomainType.ENGINE, "1")


def test_a_subject_of_the_longest_names_fits_a_control_line() -> None:
    assert len(control_subject("reassignment", "\U0001f525" * 64, "\U0001f525" * 200)) < 4_000


def test_an_outcome_of_version_1_had_its_cost_in_dollars() -> None:
    data = decode(OUTCOME_V1).data
    assert data == DecisionOutcomeKnown.model_validate(
        {"decision": "d-1", "outcome": "success", "input_tokens": 10, "cost_microusd": 300_000}
    )
    assert decode(OUTCOME_V1.replace(b'"0.30"', b"0.1")).data.model_dump()["cost_microusd"] == 100_000
    assert decode(OUTCOME_V1.replace(b'"0.30"', b"null")).data.model_dump()["cost_microusd"] is None
