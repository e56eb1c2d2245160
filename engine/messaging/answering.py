"""Answers to messages: what was asked for, or a problem; and what every message may ask for in its headers."""

import logging
import math
from collections.abc import Mapping
from typing import Final

import orjson
from faststream.nats import NatsMessage, NatsResponse

from relight.engine.errors import RequestRefused
from relight.engine.messaging.problems import Told, told
from relight.engine.messaging.subjects import pattern_of
from relight.engine.messaging.telemetry import MessageCounts
from relight.engine.problems import MEDIA_TYPE
from relight.engine.recorder.receipts import Ack

ACK: Final = "relight-ack"
TIMEOUT: Final = "relight-timeout-s"
STATUS: Final = "Relight-Status"
MAX_TIMEOUT_S: Final = 300.0
MAX_ANSWER_BYTES: Final = 1_000_000
"""NATS refuses to publish more than max_payload, by default 1 MiB with headers: the sender would hear nothing."""

log = logging.getLogger(__name__)


def answer(value: object) -> NatsResponse:
    """JSON. Raises `RequestRefused` when it is more than NATS carries."""
    body = value if isinstance(value, bytes) else orjson.dumps(value)
    if len(body) > MAX_ANSWER_BYTES:
        raise RequestRefused(
            "answer-too-large",
            f"the answer has {len(body)} bytes, of {MAX_ANSWER_BYTES}: ask for less, by `limit`",
        )
    return NatsResponse(body, headers={"content-type": "application/json", STATUS: "200"})


def refusal(message: NatsMessage, error: Exception, counts: MessageCounts) -> NatsResponse:
    """The problem as an answer; counted, and logged without anything that the message held."""
    problem = told(error)
    subject = pattern_of(message.raw_message.subject)
    counts.refused.labels(subject=subject, problem=problem.kind).inc()
    if not message.reply_to:
        log.warning("message on %s refused: %s", subject, problem.kind, extra={"action": "message_refused"})
    return _as_answer(problem)


def _as_answer(problem: Told) -> NatsResponse:
    return NatsResponse(problem.as_json(), headers={"content-type": MEDIA_TYPE, STATUS: str(problem.status)})


def asked(headers: Mapping[str, str]) -> tuple[Ack, float | None]:
    """The level that is asked for, replicated where none is, and how long to wait. Raises `RequestRefused`."""
    named = {name.lower(): value for name, value in headers.items() if name.lower() in (ACK, TIMEOUT)}
    try:
        ack = Ack(named.get(ACK, Ack.REPLICATED))
    except ValueError:
        raise RequestRefused("malformed", f"Relight-Ack: one of {', '.join(Ack)}") from None
    if TIMEOUT not in named:
        return ack, None
    try:
        timeout_s = float(named[TIMEOUT])
    except ValueError:
        timeout_s = math.nan
    if not 0 < timeout_s <= MAX_TIMEOUT_S:  # not a number is neither
        raise RequestRefused("malformed", f"Relight-Timeout-S: seconds above 0 and up to {MAX_TIMEOUT_S:g}")
    return ack, timeout_s
