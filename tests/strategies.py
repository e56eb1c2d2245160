"""Hypothesis strategies for events of every kind there is, derived from the fields of their models.

Pools of entities, regions and tenants are small, so that many events meet in one row; ids fall into a few
milliseconds, but no two are the same.
"""

from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from folding import START, Wire, event_id, wire
from hypothesis import strategies as st
from pydantic import BaseModel

from relight.events import values
from relight.events.base import Event
from relight.events.catalog import event_types
from relight.events.envelope import PLATFORM

M = TypeVar("M", bound=BaseModel)

KEYS = ("a", "ü.* >%")
NAMES = ("eu", "us.east 1")
TENANTS = ("acme", PLATFORM, "a.*>%")
HASHES = ("0" * 64, "f" * 64)

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
keys = st.sampled_from(KEYS)
counts = st.sampled_from((0, 1, 2, values.MAX_INTEGER)) | st.integers(0, 10_000)
times = st.datetimes(
    datetime(1970, 1, 2),  # noqa: DTZ001 - Hypothesis takes naive bounds and a strategy for zones
    datetime(2100, 1, 1),  # noqa: DTZ001 - the same
    timezones=st.sampled_from((UTC, timezone(timedelta(hours=5, minutes=30)))),
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-values.MAX_INTEGER, values.MAX_INTEGER)
    | st.floats(-values.MAX_INTEGER, values.MAX_INTEGER)
    | texts
)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=5
)

BY_TYPE: list[tuple[object, st.SearchStrategy[Any]]] = [
    (values.Text, texts),
    (values.Key, keys),
    (values.Name, st.sampled_from(NAMES)),
    (values.Keys, st.lists(keys, max_size=3).map(tuple)),
    (values.Texts, st.lists(texts, max_size=3).map(tuple)),
    (values.EventId, st.integers(0, 3).map(event_id)),
    (values.Sha256, st.sampled_from(HASHES)),
    (values.Sha256s, st.lists(st.sampled_from(HASHES), max_size=3).map(tuple)),
    (values.Count, counts),
    (values.Whole, st.sampled_from((0, -1, 1, -values.MAX_INTEGER, values.MAX_INTEGER)) | st.integers(-10, 10)),
    (values.Ordinal, st.sampled_from((1, 2, values.MAX_INTEGER)) | st.integers(1, 10_000)),
    (values.Fraction, st.sampled_from((0.0, -0.0, 1.0)) | st.floats(0, 1)),
    (values.Phi, st.sampled_from((0.0, -0.0, 300.0)) | st.floats(0, 300)),
    (values.Time, times),
    (values.JsonObject, st.dictionaries(texts, json_values, max_size=3)),
    (values.Content, st.builds(values.Content, sha256=st.sampled_from(HASHES), size_bytes=counts)),
    (bool, st.booleans()),
    (NoneType, st.none()),
]


def of_type(hint: object) -> st.SearchStrategy[Any]:
    """Valid values of a field's type. Raises TypeError for one that `BY_TYPE` does not know yet."""
    for known, strategy in BY_TYPE:
        if hint is known:
            return strategy
    if get_origin(hint) in (Union, UnionType):
        return st.one_of(*(of_type(part) for part in get_args(hint)))
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return models(hint)
    if get_origin(hint) is Annotated and get_origin(get_args(hint)[0]) is tuple:
        return st.lists(of_type(get_args(get_args(hint)[0])[0]), max_size=2).map(tuple)
    if get_origin(hint) is Literal:
        return st.sampled_from(get_args(hint))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return st.sampled_from(list(hint))
    raise TypeError(f"no strategy for {hint}: add it to tests/strategies.py")


def facts(cls: type[Event]) -> st.SearchStrategy[Event]:
    """Valid events of one kind."""
    return models(cls)


def models(cls: type[M]) -> st.SearchStrategy[M]:
    """Valid values of one model; what has a default is left out at times."""
    hints = get_type_hints(cls, include_extras=True)
    required = {name: of_type(hints[name]) for name, field in cls.model_fields.items() if field.is_required()}
    optional = {name: of_type(hints[name]) for name, field in cls.model_fields.items() if not field.is_required()}
    return st.fixed_dictionaries(required, optional=optional).map(cls.model_validate)


FACTS = {type: facts(cls) for type, cls in event_types().items()}
SUBSYSTEMS = sorted({type.partition(".")[0] for type in FACTS})

_ids = st.builds(event_id, st.integers(0, 3).map(lambda ms: int(START.timestamp() * 1000) + ms), st.integers(0, 999))
_utc_times = times.map(lambda time: time.astimezone(UTC))


@st.composite
def wires(draw: st.DrawFn, type: str, id: str, tenants: tuple[str, ...]) -> Wire:
    """One event of this type and id: its subject, its body, and what is decoded from them."""
    data = draw(FACTS[type])
    rev = None if data.POLICY is None else draw(st.integers(1, 5))
    tenant, region = draw(st.sampled_from(tenants)), draw(st.sampled_from(NAMES))
    return wire(data, id=id, time=draw(_utc_times), tenant=tenant, region=region, rev=rev)


@st.composite
def event_lists(draw: st.DrawFn, max_more: int = 8) -> list[Wire]:
    """Events of one or two subsystems, so that they meet; each kind that these have at least twice."""
    subsystems = draw(st.sets(st.sampled_from(SUBSYSTEMS), min_size=1, max_size=2))
    kinds = [type for type in FACTS if type.partition(".")[0] in subsystems]
    types = kinds * 2 + draw(st.lists(st.sampled_from(kinds), max_size=max_more))
    ids = draw(st.lists(_ids, min_size=len(types), max_size=len(types), unique=True))
    tenants = draw(st.sampled_from((TENANTS[:1], TENANTS[:1], TENANTS)))
    return [draw(wires(type, id, tenants)) for type, id in zip(types, ids, strict=True)]
