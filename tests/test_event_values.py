"""What a value of an event may be, and what it becomes."""

import copy
from datetime import UTC
from typing import Any

import pytest
from folding import START
from pydantic import TypeAdapter, ValidationError

from relight.events.breakers import BreakerSucceeded
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

NUL, SURROGATE = "a\x00b", "a\ud800"


def valid(annotation: Any, value: object) -> Any:
    return TypeAdapter(annotation).validate_python(value)


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"in": value}
    return value


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
