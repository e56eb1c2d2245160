"""Reads events off the stream: which classes exist, which one the bytes hold, and how older versions are raised."""

import pkgutil
from functools import cache
from importlib import import_module
from typing import Annotated, Any, Literal, Union

import orjson
from pydantic import Field, TypeAdapter, ValidationError, create_model

import relight.events
from relight.events.base import TYPES, Control, Event
from relight.events.envelope import Recorded
from relight.events.errors import Reason, Undecodable
from relight.events.subjects import CONTROLS

CLOCK_TOLERANCE_MS = 60_000
"""An id further ahead of the stream's own timestamp is refused; no process adopts one that far ahead of its clock."""

_Any = Recorded[Event]


@cache
def event_types() -> dict[str, type[Event]]:
    """Every event class of every subsystem, by wire type."""
    for module in pkgutil.iter_modules(relight.events.__path__, "relight.events."):
        import_module(module.name)
    return dict(sorted(TYPES.items()))


@cache
def _adapter() -> TypeAdapter[_Any]:
    models = tuple(_recorded_model(cls) for cls in event_types().values())
    tagged: Any = Annotated[Union[models], Field(discriminator="type")]  # noqa: UP007  # known only at run time
    return TypeAdapter(tagged)


def _recorded_model(cls: type[Event]) -> type[_Any]:
    fields: dict[str, Any] = {"type": (Literal[cls.TYPE], ...), "dataversion": (Literal[cls.VERSION], ...)}
    if issubclass(cls, Control):
        ruling = ("rev", "policyversion", "decidedat", "observedseq")
        fields |= {name: (_required(Recorded.model_fields[name].annotation), ...) for name in ruling}
        fields["policy"] = (Literal[cls.POLICY], ...)
    else:
        fields |= {name: (None, None) for name in ("rev", "policy", "policyversion", "decidedat", "observedseq")}
    return create_model(f"Recorded{cls.__name__}", __base__=Recorded[cls], **fields)  # type: ignore[valid-type]


def _required(annotation: Any) -> Any:
    return Union[tuple(arg for arg in annotation.__args__ if arg is not type(None))]  # noqa: UP007  # likewise


def prepare() -> None:
    """Builds what decoding needs, which the first event would wait for otherwise."""
    _adapter()


def decode(body: bytes) -> Recorded[Event]:
    """The event in `body`, raised to the current version of its data.

    Raises `Undecodable`, whose reason says what kind of thing it is instead, and whose detail names the field.
    """
    try:
        event: _Any = _adapter().validator.validate_json(body)
    except ValidationError as error:
        event = _decode_slowly(body, error)
    if event.subject != event.data.entity:
        raise Undecodable(Reason.INVALID, f"subject: {event.subject!r} is not the data's {event.data.entity!r}")
    if event.is_control and (event.publisher, event.pseq) != (event.nats_subject, event.rev):
        raise Undecodable(Reason.INVALID, "publisher: a control event's is its subject, and its pseq its rev")
    if not event.is_control and event.publisher.startswith(f"{CONTROLS}."):
        raise Undecodable(Reason.INVALID, "publisher: an observation's is never a control subject")
    return event


def decode_message(subject: str, body: bytes, timestamp_ms: int) -> Recorded[Event]:
    """`decode`, and what only the stream can tell: the subject it stands on and when it came (Unix milliseconds)."""
    event = decode(body)
    if event.nats_subject != subject:
        raise Undecodable(Reason.SUBJECT_MISMATCH, f"stands on {subject}, belongs on {event.nats_subject}")
    if id_ms(event.id) > timestamp_ms + CLOCK_TOLERANCE_MS:
        ahead_s = (id_ms(event.id) - timestamp_ms) / 1000
        raise Undecodable(Reason.CLOCK_AHEAD, f"id is {ahead_s:.0f} s ahead of the stream's clock")
    return event


def id_ms(event_id: str) -> int:
    """Unix milliseconds in a UUIDv7."""
    return int(event_id[:8] + event_id[9:13], 16)


def _decode_slowly(body: bytes, error: ValidationError) -> Recorded[Event]:
    try:
        document = orjson.loads(body)
    except ValueError:
        raise Undecodable(Reason.NOT_AN_EVENT, "the body is not JSON") from None
    if not isinstance(document, dict) or document.get("specversion") != "1.0":
        raise Undecodable(Reason.NOT_AN_EVENT, "the body is no CloudEvents 1.0 document")
    cls = event_types().get(str(document.get("type")))
    if cls is None:
        raise Undecodable(Reason.UNKNOWN_TYPE, f"type {document.get('type')!r} is none of {len(event_types())} known")
    version = document.get("dataversion")
    if not isinstance(version, int) or version < 1:
        raise Undecodable(Reason.INVALID, f"dataversion: {version!r} is no version")
    if version > cls.VERSION:
        detail = f"{cls.TYPE} version {version}; this release reads up to {cls.VERSION}: upgrade, then retry"
        raise Undecodable(Reason.FUTURE_VERSION, detail)
    if version == cls.VERSION:
        raise Undecodable(Reason.INVALID, _explain(error))
    return _upcast(document, cls, version)


def _upcast(document: dict[str, Any], cls: type[Event], version: int) -> Recorded[Event]:
    try:
        data = document["data"]
        for step in range(version, cls.VERSION):
            data = cls.UPCASTS[step](data)
        return _adapter().validate_python({**document, "dataversion": cls.VERSION, "data": data})
    except ValidationError as error:
        raise Undecodable(Reason.INVALID, _explain(error)) from None
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        detail = f"{cls.TYPE} version {version} cannot be raised to {cls.VERSION}: {type(error).__name__}"
        raise Undecodable(Reason.INVALID, detail) from None


def _explain(error: ValidationError) -> str:
    """The first faults, by field, without the values: they may be secrets."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{'.'.join(str(part) for part in fault['loc'][1:]) or 'event'}: {fault['msg']}" for fault in faults[:3]]
    return "; ".join(lines) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")
