"""Events: what a value may be, what bytes are refused and why, which subject follows, and payloads of every version."""

import copy
from datetime import UTC
from pathlib import Path
from typing import Any

import orjson
import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from folding import START, Wire, event_id, id_at, moment, wire
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from strategies import event_lists

from relight.events.base import Event
from relight.events.breakers import BreakerClosed, BreakerFailed, BreakerSucceeded
from relight.events.catalog import CLOCK_TOLERANCE_MS, decode, decode_message, event_types, id_ms
from relight.events.certification import CertificationGranted
from relight.events.decisions import DecisionOutcomeKnown, DecisionTaken
from relight.events.errors import Reason, Undecodable
from relight.events.failover import FailoverPolicyDeclared
from relight.events.faults import DomainType, FaultDetected
from relight.events.subjects import control_subject, observation_subject, token
from relight.events.values import (
    MAX_DEPTH,
    MAX_INTEGER,
    MAX_KEY_LENGTH,
    Fraction,
    JsonObject,
    Key,
    Keys,
    Name,
    Text,
    Time,
)

PAYLOADS = Path(__file__).parent / "payloads"
NUL, SURROGATE = "a\x00b", "a\ud800"
OUTCOME_V1 = (
    b'{"specversion":"1.0","id":"019b7636-2000-7000-8000-000000000001","source":"relight://eu/test",'
    b'"type":"decisions.outcome_known","subject":"d-1","time":"2026-01-01T00:00:00.000000Z","tenant":"acme",'
    b'"region":"eu","dataversion":1,"publisher":"p","pseq":"1","prev":"' + b"0" * 64 + b'",'
    b'"data":{"decision":"d-1","outcome":"success","input_tokens":10,"cost_usd":"0.30"}}'
)


def valid(annotation: Any, value: object) -> Any:
    return TypeAdapter(annotation).validate_python(value)


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"in": value}
    return value


def observation() -> Wire:
    return wire(BreakerFailed(service_name="p"), id=id_at(0), time=moment(0))


def ruling() -> Wire:
    return wire(BreakerClosed(service_name="p", reason="well"), id=id_at(0), time=moment(0), rev=4)


def changed(event: Wire, **attributes: object) -> bytes:
    """The event's document with other attributes; `...` leaves one out."""
    document = {**orjson.loads(event[1]), **attributes}
    return orjson.dumps({name: value for name, value in document.items() if value is not ...})


# What a value may be


@pytest.mark.parametrize("annotation", [Text, Key, Name])
@pytest.mark.parametrize("value", [NUL, SURROGATE, 7])
def test_text_refuses_what_the_path_cannot_carry(annotation: object, value: object) -> None:
    with pytest.raises(ValidationError):
        valid(annotation, value)


@pytest.mark.parametrize("value", ["", "a\nb", "a\n", "\x7f", "k" * (MAX_KEY_LENGTH + 1)])
def test_a_key_is_one_line_that_is_not_empty_and_not_too_long(value: str) -> None:
    with pytest.raises(ValidationError):
        valid(Key, value)


def test_a_key_may_be_anything_else() -> None:
    for value in ("k" * MAX_KEY_LENGTH, "ü.*> %", "日本", " "):
        assert valid(Key, value) == value


@pytest.mark.parametrize(
    "value",
    [
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": [1, {"b": -float("inf")}]},
        {"a": MAX_INTEGER + 1},
        {"a": -MAX_INTEGER - 1},
        {"a": 1e300},
        {"a": NUL},
        {"a": [SURROGATE]},
        {NUL: 1},
        {"a": {SURROGATE: 1}},
        {"a": {"k" * (MAX_KEY_LENGTH + 1): 1}},
        nested(MAX_DEPTH + 1),
        {"a": START},
        {1: "a"},
    ],
)
def test_an_object_refuses_what_jsonb_or_a_reader_of_json_would_change(value: object) -> None:
    with pytest.raises(ValidationError):
        valid(JsonObject, value)


def test_an_object_may_be_as_deep_and_its_integers_as_large_as_stated() -> None:
    assert valid(JsonObject, nested(MAX_DEPTH)) == nested(MAX_DEPTH)
    assert valid(JsonObject, {"a": MAX_INTEGER, "b": -MAX_INTEGER}) == {"a": MAX_INTEGER, "b": -MAX_INTEGER}


def test_integral_floats_in_an_object_become_integers() -> None:
    value = valid(JsonObject, {"a": 3.0, "b": [-0.0, 0.5], "c": True})
    assert repr(value) == "{'a': 3, 'b': [0, 0.5], 'c': True}"


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_fraction_lies_between_0_and_1(value: float) -> None:
    with pytest.raises(ValidationError):
        valid(Fraction, value)


def test_a_fraction_has_no_negative_zero() -> None:
    assert repr(valid(Fraction, -0.0)) == "0.0"


def test_a_count_is_neither_negative_nor_beyond_what_a_double_holds() -> None:
    for value in (-1, MAX_INTEGER + 1, 0.5, float("nan")):
        with pytest.raises(ValidationError):
            BreakerSucceeded(service_name="p", latency_ms=value)  # type: ignore[arg-type]


def test_keys_keep_their_order_and_lose_what_is_said_twice() -> None:
    assert valid(Keys, ["b", "a", "b"]) == ("b", "a")


def test_a_time_is_aware_and_held_in_utc() -> None:
    held = valid(Time, "2026-01-01T02:00:00+02:00")
    assert (held, held.tzinfo) == (START, UTC)
    with pytest.raises(ValidationError):
        valid(Time, "2026-01-01T00:00:00")


def test_a_fact_has_no_fields_that_it_does_not_declare() -> None:
    with pytest.raises(ValidationError):
        BreakerSucceeded(service_name="p", latency_s=1)  # type: ignore[call-arg]


def test_no_way_of_making_an_event_skips_its_validation() -> None:
    event = BreakerSucceeded(service_name="p", latency_ms=1)
    with pytest.raises(ValidationError):
        BreakerSucceeded.model_construct(service_name=NUL)
    with pytest.raises(ValidationError):
        event.model_copy(update={"latency_ms": -1})
    with pytest.raises(ValidationError):
        event.latency_ms = 2
    assert event.model_copy(update={"latency_ms": 2}) == BreakerSucceeded(service_name="p", latency_ms=2)
    assert event.model_copy(deep=True) == event == copy.copy(event)


# Why bytes are refused


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


# Subjects

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


# Payloads of every version, kept for ever


def versions() -> list[tuple[str, int]]:
    return [(type, version) for type, cls in event_types().items() for version in range(1, cls.VERSION + 1)]


def test_every_version_of_every_event_has_a_payload_and_nothing_else_has() -> None:
    assert {path.name for path in PAYLOADS.iterdir()} == {f"{type}.v{version}.json" for type, version in versions()}


@pytest.mark.parametrize(("type", "version"), versions())
def test_a_payload_of_any_version_is_still_read(type: str, version: int) -> None:
    body = (PAYLOADS / f"{type}.v{version}.json").read_bytes()
    document = orjson.loads(body)
    event = decode(body)
    assert (event.type, document["dataversion"]) == (type, version)
    assert event.dataversion == event_types()[type].VERSION
    if version == event.dataversion:
        read = orjson.loads(event.data.model_dump_json())
        assert {name: read[name] for name in document["data"]} == document["data"]


def test_an_outcome_of_version_1_had_its_cost_in_dollars() -> None:
    data = decode(OUTCOME_V1).data
    assert data == DecisionOutcomeKnown.model_validate(
        {"decision": "d-1", "outcome": "success", "input_tokens": 10, "cost_microusd": 300_000}
    )
    assert decode(OUTCOME_V1.replace(b'"0.30"', b"0.1")).data.model_dump()["cost_microusd"] == 100_000
    assert decode(OUTCOME_V1.replace(b'"0.30"', b"null")).data.model_dump()["cost_microusd"] is None


# Any CloudEvents SDK


@pytest.mark.parametrize(("type", "version"), versions())
def test_the_cloudevents_sdk_reads_ours_and_we_read_what_it_writes(type: str, version: int) -> None:
    body = (PAYLOADS / f"{type}.v{version}.json").read_bytes()
    theirs = JSONFormat().read(None, body)
    assert isinstance(theirs, CloudEvent)
    ours = decode(body)
    assert (theirs.get_id(), theirs.get_type(), theirs.get_subject()) == (ours.id, ours.type, ours.subject)
    assert theirs.get_time() == ours.time
    assert decode(JSONFormat().write(theirs)) == ours


def test_an_event_made_with_the_cloudevents_sdk_is_read() -> None:
    made = CloudEvent(
        attributes={
            "specversion": "1.0",
            "id": event_id(1_767_225_600_000),
            "source": "relight://eu/go-agent",
            "type": "breakers.failed",
            "subject": "search",
            "time": START,
            "datacontenttype": "application/json",
            "tenant": "acme",
            "region": "eu",
            "dataversion": 1,
            "publisher": "go-agent.0",
            "pseq": "1",
            "prev": "0" * 64,
        },
        data={"service_name": "search", "error_class": "timeout"},
    )
    assert decode(JSONFormat().write(made)).data == BreakerFailed(service_name="search", error_class="timeout")


def test_events_with_all_sorts_of_values_survive_the_cloudevents_sdk() -> None:
    facts: list[Event] = [
        DecisionTaken(decision="ü %", decision_type="agent_call", context={"a": [None, 0.1, {"ß": MAX_INTEGER}]}),
        FailoverPolicyDeclared(policy_name="p", source_region="eu", fallback_regions=("b", "a"), is_active=False),
        CertificationGranted.model_validate(
            {
                "certification": "c",
                "component_name": "k",
                "certification_level": "basic",
                "tests_passed": 0,
                "tests_failed": 0,
                "overall_score": 1 / 3,
            }
        ),
    ]
    for fact in facts:
        _, body, ours = wire(fact, id=id_at(0), time=moment(0))
        assert decode(JSONFormat().write(JSONFormat().read(None, body))) == ours
