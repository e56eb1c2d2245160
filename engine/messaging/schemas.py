"""Schemas and messages of the AsyncAPI document: made of the same models that check what comes in."""

from functools import cache
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from relight.engine.cloudevents import BATCH, STRUCTURED
from relight.engine.health.document import Flat
from relight.engine.ingest import MAX_EVENTS, Accepted, Incoming, IncomingRuling
from relight.engine.messaging.answering import ACK, MAX_TIMEOUT_S, TIMEOUT
from relight.engine.messaging.querying import QueryAnswer, QueryCommand
from relight.engine.messaging.watermarks import WatermarkQuestion
from relight.engine.problems import MEDIA_TYPE as PROBLEM
from relight.engine.problems import Problem
from relight.engine.recorder.receipts import Ack
from relight.engine.rulings import Ruled
from relight.events.base import Control, Event
from relight.events.catalog import event_types
from relight.events.envelope import Recorded

Json = dict[str, Any]

SCHEMAS = "#/components/schemas/"
MESSAGES = "#/components/messages/"
JSON = "application/json"
MODELS: tuple[type[BaseModel], ...] = (
    Incoming,
    IncomingRuling,
    Accepted,
    Ruled,
    WatermarkQuestion,
    QueryCommand,
    QueryAnswer,
    Flat,
    Problem,
)
NUMBERS = {"type": "object", "additionalProperties": {"type": "string"}}
WATERMARK_ANSWER: Json = {
    "type": "object",
    "required": ["pseq", "dead"],
    "properties": {
        "pseq": {"type": "integer", "description": "every number up to it is in the tables or a dead letter"},
        "dead": {**NUMBERS, "description": "of the numbers asked for, the dead letters and their reasons"},
        "reached": {"type": "array", "items": {"type": "integer"}, "description": "of several asked for, these are"},
        "head": {
            "type": "array",
            "prefixItems": [{"type": "integer"}, {"type": "string"}],
            "description": "with `archives`: the highest number in the tables, and that event's SHA-256",
        },
        "archives": {
            "type": "array",
            "description": "with `archives`: all there are, and up to which number each has sealed the publisher",
            "items": {
                "type": "object",
                "required": ["archive", "last_seq", "pseq", "sha256"],
                "properties": {
                    "archive": {"type": "string"},
                    "last_seq": {"type": "integer"},
                    "pseq": {"type": "integer"},
                    "sha256": {"type": "string"},
                },
            },
        },
    },
}
ASKING_HEADERS: Json = {
    "type": "object",
    "properties": {
        ACK.title(): {"type": "string", "enum": [str(ack) for ack in Ack], "default": str(Ack.REPLICATED)},
        TIMEOUT.title(): {"type": "string", "description": f"seconds above 0 and up to {MAX_TIMEOUT_S:g}"},
        "traceparent": {"type": "string", "description": "W3C trace context"},
    },
}


def observations() -> list[type[Event]]:
    """What may be sent, and is published; a recorder's own say so by themselves."""
    return [cls for cls in event_types().values() if not issubclass(cls, Control)]


def sendable() -> list[type[Event]]:
    return [cls for cls in observations() if not cls.TYPE.startswith("recorder.")]


def rulings() -> list[type[Event]]:
    return [cls for cls in event_types().values() if issubclass(cls, Control)]


@cache
def schemas() -> Json:
    """By name, as `components.schemas`."""
    models: list[tuple[type[BaseModel], Literal["validation"]]] = [
        (model, "validation") for model in (*MODELS, *event_types().values())
    ]
    made: Json = models_json_schema(models, ref_template=SCHEMAS + "{model}")[1]["$defs"]
    return dict(sorted((made | {"Recorded": _envelope()}).items()))


def _envelope() -> Json:
    """Everything of a recorded event but its data."""
    made: Json = Recorded.model_json_schema(ref_template=SCHEMAS + "{model}")
    made.pop("$defs", None)
    made["properties"].pop("data")
    made["required"].remove("data")
    return made


@cache
def messages() -> Json:
    """By name, as `components.messages`."""
    made: Json = {}
    for cls in sendable():
        made[f"sent.{cls.TYPE}"] = _event(cls, "Incoming", cls.TYPE) | {"headers": ASKING_HEADERS}
    for cls in rulings():
        made[f"sent.{cls.TYPE}"] = _event(cls, "IncomingRuling", cls.TYPE) | {"headers": ASKING_HEADERS}
    for cls in event_types().values():
        made[f"recorded.{cls.TYPE}"] = _event(cls, "Recorded", cls.TYPE)
    batch = {"type": "array", "items": _of("Incoming"), "minItems": 1, "maxItems": MAX_EVENTS}
    accepted = {"type": "object", "required": ["accepted"], "properties": {"accepted": _array(_of("Accepted"))}}
    return made | {
        "sent.batch": _message("Several events, recorded in order, or none", batch, BATCH)
        | {"headers": ASKING_HEADERS},
        "accepted": _message("What was taken", accepted),
        "ruled": _message("The ruling that won", _of("Ruled")),
        "problem": _message("Why it cannot be done, after RFC 9457", _of("Problem"), PROBLEM),
        "watermark.question": _message("How far is this publisher projected?", _of("WatermarkQuestion")),
        "watermark.answer": _message("So far it is", WATERMARK_ANSWER),
        "status.question": _message("How is it? The body is empty", {"type": "null"}),
        "status.answer": _message("How it is, and why", _of("Flat")),
        "query.question": _message("A declared query", _of("QueryCommand")),
        "query.answer": _message("Its rows", _of("QueryAnswer")),
    }


def _event(cls: type[Event], envelope: str, name: str) -> Json:
    fact = {"type": "object", "required": ["type", "data"], "properties": {"type": {"const": name}}}
    fact["properties"] = {"type": {"const": name}, "data": _of(cls.__name__)}
    return _message((cls.__doc__ or name).strip().splitlines()[0], {"allOf": [_of(envelope), fact]}, STRUCTURED) | {
        "name": name
    }


def _message(title: str, payload: Json, content_type: str = JSON) -> Json:
    return {"title": title, "contentType": content_type, "payload": payload}


def _of(name: str) -> Json:
    return {"$ref": SCHEMAS + name}


def _array(items: Json) -> Json:
    return {"type": "array", "items": items}
