"""The AsyncAPI 3 document: what the application listens to, what it answers, and what is published."""

from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from typing import Any, Final

import orjson
from faststream.nats import NatsResponse
from faststream.nats.annotations import NatsMessage
from faststream.specification import AsyncAPI

from relight.engine.log.topology import addresses
from relight.engine.messaging.broker import build_broker
from relight.engine.messaging.schemas import MESSAGES, messages, observations, rulings, schemas, sendable
from relight.engine.messaging.subjects import QUEUE

Json = dict[str, Any]

SERVER: Final = "nats://127.0.0.1:4222"
DESCRIPTION: Final = (
    "Events of a fleet of agents are sent to `in.<tenant>` as CloudEvents, in structured or binary mode or in batches"
    ", and answered once they are as certain as asked. Commands are asked by request and reply. What is recorded is"
    " published on the stream EV. In subjects all but letters, digits, `-`, `_` and `~` is percent-encoded."
)
TENANT: Final = {"tenant": {"description": "whose it is, percent-encoded; - is the platform"}}


def document(nats_url: str = SERVER) -> Json:
    """Of this release, for the server at `nats_url`, whose login is left out."""
    return orjson.loads(_document(nats_url))  # type: ignore[no-any-return]  # a copy, for the caller to keep


@cache
def _document(nats_url: str) -> bytes:
    """FastStream tells server, form and subscriptions; of one subscription it can tell but one channel, without
    parameters or replies, so the channels behind each are described here (a test compares them)."""
    broker = build_broker(addresses(nats_url)[0], on_event=_undone, on_command=_undone, on_question=_unheard)
    told: Json = (
        AsyncAPI(broker, title="Relight", version=version("relight"), description=DESCRIPTION, schema_version="3.0.0")
        .to_specification()
        .to_jsonable()
    )
    [server] = told["servers"].values()
    described = {
        "asyncapi": told["asyncapi"],
        "info": told["info"],
        "defaultContentType": told["defaultContentType"],
        "servers": {"nats": {"host": server["host"], "protocol": server["protocol"]}},
        "channels": _channels(),
        "operations": _operations(),
        "components": {"messages": messages(), "schemas": schemas()},
    }
    return orjson.dumps(described)


def _channels() -> Json:
    sent = [*(f"sent.{cls.TYPE}" for cls in sendable()), "sent.batch"]
    return {
        "events": _channel("in.{tenant}", "Events that are to be recorded.", sent, TENANT),
        "watermark": _channel("cmd.watermark", "How far a publisher is projected.", ["watermark.question"]),
        "status": _channel("cmd.status", "How the service is.", ["status.question"]),
        "query": _channel("cmd.query.{tenant}", "A declared query, for one tenant.", ["query.question"], TENANT),
        "rule": _channel(
            "cmd.rule.{tenant}",
            "Appends a ruling, if no other came after the revision it names.",
            [f"sent.{cls.TYPE}" for cls in rulings()],
            TENANT,
        ),
        "answers": _channel(
            None,
            "Where the sender waits.",
            ["accepted", "ruled", "watermark.answer", "status.answer", "query.answer", "problem"],
        ),
        "observations": _channel(
            "ev.{region}.{subsystem}.{tenant}.{fact}",
            "What happened; on the stream EV.",
            [f"recorded.{cls.TYPE}" for cls in observations()],
            {
                "region": {"description": "where it happened"},
                "subsystem": {"description": "the first part of the type"},
                **TENANT,
                "fact": {"description": "the rest of the type"},
            },
        ),
        "rulings": _channel(
            "ctl.{policy}.{tenant}.{entity}",
            "What was ruled, one subject for each invariant; on the stream EV.",
            [f"recorded.{cls.TYPE}" for cls in rulings()],
            {
                "policy": {"description": "which policy rules"},
                **TENANT,
                "entity": {"description": "what it rules on"},
            },
        ),
        "progress": _channel(
            "watermark.{publisher}",
            "How far the projector has come, for publishers that somebody asked about within the last minute.",
            ["watermark.answer"],
            {"publisher": {"description": "the first 32 hexadecimal digits of the SHA-256 of its name"}},
        ),
    }


def _channel(address: str | None, description: str, names: Iterable[str], parameters: Json | None = None) -> Json:
    made: Json = {
        "address": address,
        "description": description,
        "messages": {name: {"$ref": MESSAGES + name} for name in names},
    }
    return made if parameters is None else made | {"parameters": parameters}


def _operations() -> Json:
    return {
        "takeEvents": _asked("events", "Records events and answers.", "accepted"),
        "tellWatermark": _asked("watermark", "Tells how far a publisher is projected.", "watermark.answer"),
        "tellStatus": _asked("status", "Tells how the service is.", "status.answer"),
        "askQuery": _asked("query", "Asks a declared query.", "query.answer"),
        "appendRuling": _asked("rule", "Appends a ruling by compare-and-set.", "ruled"),
        "publishObservation": _said("observations", "Each event that was recorded."),
        "publishRuling": _said("rulings", "Each ruling that won."),
        "announceProgress": _said("progress", "The projector, after each batch."),
    }


def _asked(channel: str, summary: str, answer: str) -> Json:
    answers = [{"$ref": f"#/channels/answers/messages/{name}"} for name in (answer, "problem")]
    return {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
        "bindings": {"nats": {"queue": QUEUE}},
        "reply": {"channel": {"$ref": "#/channels/answers"}, "messages": answers},
    }


def _said(channel: str, summary: str) -> Json:
    return {"action": "send", "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}


# FastStream describes a broker by its handlers; the one that is described here is never started.


async def _undone(message: NatsMessage) -> NatsResponse:
    raise NotImplementedError("this broker is only described, never started")


async def _unheard(message: NatsMessage) -> None:
    raise NotImplementedError("this broker is only described, never started")
