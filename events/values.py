"""The values that events are made of: each passes JSON, SQLite, NATS and PostgreSQL unchanged."""

import math
from datetime import UTC, datetime
from typing import Annotated

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
)

MAX_INTEGER = 2**53
"""Beyond it a JSON reader that holds numbers as doubles silently changes the value (RFC 8259, section 6)."""
MAX_KEY_LENGTH = 200
"""Characters and UTF-8 bytes; keys stand in NATS subjects (4 KiB a line) and in PostgreSQL's B-trees (2.7 KB a row)."""
MAX_DEPTH = 32
_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def _refuse_unstorable(value: JsonValue, path: str, depth: int) -> JsonValue:
    match value:
        case None | bool():
            return value
        case str():
            return _text(value, path)
        case int():
            if abs(value) > MAX_INTEGER:
                raise ValueError(f"{path}: integer beyond 2^53; send it as text")
            return value
        case float():
            if not math.isfinite(value):
                raise ValueError(f"{path}: number is not finite")
            return _refuse_unstorable(int(value), path, depth) if value.is_integer() else value
        case _ if depth == MAX_DEPTH:
            raise ValueError(f"{path}: nested deeper than {MAX_DEPTH} levels")
        case list():
            return [_refuse_unstorable(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)]
        case dict():
            return {_key(k, path): _refuse_unstorable(v, f"{path}.{k}", depth + 1) for k, v in value.items()}


def _text(value: str, path: str) -> str:
    if "\x00" in value:
        raise ValueError(f"{path}: NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{path}: lone surrogate") from None
    return value


def _key(value: str, path: str) -> str:
    if len(value) > MAX_KEY_LENGTH:
        raise ValueError(f"{path}: key longer than {MAX_KEY_LENGTH} characters")
    return _text(value, f"{path} (key)")


def _storable_object(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if _plainly_storable(value, 0):
        return value
    return {_key(k, "object"): _refuse_unstorable(v, k, 1) for k, v in value.items()}


def _plainly_storable(value: JsonValue, depth: int) -> bool:
    """Whether `_refuse_unstorable` would return it as it is; False when in doubt.

    Twice as fast, for it names no path; and it runs whenever an event with such an object is made or decoded.
    """
    if isinstance(value, str):
        return value.isascii() and "\x00" not in value
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, int):
        return -MAX_INTEGER <= value <= MAX_INTEGER
    if isinstance(value, dict) and depth < MAX_DEPTH:
        for key, item in value.items():
            if len(key) > MAX_KEY_LENGTH or not key.isascii() or "\x00" in key:
                return False
            if not _plainly_storable(item, depth + 1):
                return False
        return True
    return isinstance(value, list) and depth < MAX_DEPTH and all(_plainly_storable(v, depth + 1) for v in value)


def _utc(value: datetime) -> datetime:
    try:
        moment = value.astimezone(UTC)
    except OverflowError:
        raise ValueError("beyond the years 1 to 9999 in UTC") from None
    if moment in (_EARLIEST, _LATEST):
        raise ValueError("the first and the last microsecond stand for infinity in PostgreSQL's drivers")
    return moment


def _no_number(value: object) -> object:
    """A bare number would be taken for Unix seconds or milliseconds, depending on its size."""
    if isinstance(value, int | float):
        raise ValueError("a time is RFC 3339 text, not a number")
    return value


def _a_number(value: object) -> object:
    """True is not 1, and "5" is not 5; but 5.0 is 5."""
    if isinstance(value, bool | str):
        raise ValueError("not a number")
    return value


def _no_negative_zero(value: float) -> float:
    return value + 0.0


def _short_in_utf8(value: str) -> str:
    if not value.isascii() and len(value.encode()) > MAX_KEY_LENGTH:
        raise ValueError(f"longer than {MAX_KEY_LENGTH} bytes in UTF-8")
    return value


def _distinct(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value))


Text = Annotated[str, StringConstraints(max_length=65_536, pattern=r"^[^\x00]*$")]
"""Free text of at most 65,536 characters; longer belongs into content."""
Key = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_KEY_LENGTH, pattern=r"^[^\x00-\x1f\x7f]+$"),
    AfterValidator(_short_in_utf8),
]
"""Names an entity: a task, a service, an agent."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""A tenant or a region."""
Keys = Annotated[tuple[Key, ...], Field(max_length=1_000), AfterValidator(_distinct)]
"""Distinct names, in the order that matters to the sender."""
Texts = Annotated[tuple[Text, ...], Field(max_length=1_000)]
EventId = Annotated[
    str, StringConstraints(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
]
"""UUIDv7 (RFC 9562) in lower case, so that text order is byte order is time order."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, BeforeValidator(_a_number), Field(ge=0, le=MAX_INTEGER)]
Whole = Annotated[int, BeforeValidator(_a_number), Field(ge=-MAX_INTEGER, le=MAX_INTEGER)]
"""A number that may be negative: a priority."""
Ordinal = Annotated[int, BeforeValidator(_a_number), Field(ge=1, le=MAX_INTEGER)]
"""A number counted from 1."""
MicroUsd = Count
"""Money: millionths of a US dollar."""
Sha256s = Annotated[tuple[Sha256, ...], Field(max_length=1_000)]
Fraction = Annotated[
    float, BeforeValidator(_a_number), Field(ge=0, le=1, allow_inf_nan=False), AfterValidator(_no_negative_zero)
]
"""0..1: a confidence, a risk, a score."""
Phi = Annotated[
    float, BeforeValidator(_a_number), Field(ge=0, le=300, allow_inf_nan=False), AfterValidator(_no_negative_zero)
]
"""A suspicion: minus the decimal logarithm of how likely it is that a heartbeat still comes."""
Time = Annotated[AwareDatetime, BeforeValidator(_no_number), AfterValidator(_utc)]
"""Aware, held in UTC, to the microsecond."""
JsonObject = Annotated[dict[str, JsonValue], AfterValidator(_storable_object)]
"""Structured detail; refuses what PostgreSQL's jsonb or a JSON reader would change, integral floats become integers."""


class Content(BaseModel):
    """Where a prompt, response, payload or state lies: never inside an event, always in the content store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Sha256
    size_bytes: Count
