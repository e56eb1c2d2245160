"""What can be wrong with what is asked of us, over HTTP or NATS: problem documents (RFC 9457) and their kinds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field

from relight.engine.errors import (
    AckNotProven,
    AckTimeout,
    BudgetExceeded,
    CircuitOpen,
    ControlError,
    DeadLettered,
    DeadlineExceeded,
    IngestRefused,
    NotAllowed,
    QueryError,
    QueryFailed,
    RecorderError,
    RecordRefused,
    RequestRefused,
    Superseded,
    TokenRefused,
    Unreachable,
)
from relight.events.errors import InvalidEvent

MEDIA_TYPE = "application/problem+json"
PATH = "/v1/problems"
"""Where the HTTP API describes each kind; with the kind it is the type of a problem."""
INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a type means; `status` is HTTP's, over NATS too."""

    status: int
    title: str


KINDS: Mapping[str, Kind] = {
    "malformed": Kind(400, "The request cannot be read"),
    "no-tenant": Kind(400, "The subject names no tenant"),
    "token-refused": Kind(401, "The bearer token is missing or refused"),
    "not-allowed": Kind(403, "The token does not allow this"),
    "not-found": Kind(404, "There is no such thing"),
    "too-slow": Kind(408, "The request took too long to arrive"),
    "superseded": Kind(409, "Another ruling came first"),
    "too-large": Kind(413, "The body is too large"),
    "answer-too-large": Kind(413, "The answer is too large"),
    "uri-too-long": Kind(414, "The address is too long"),
    "wrong-content-type": Kind(415, "The content type is not taken here"),
    "invalid-parameter": Kind(422, "A parameter is missing or invalid"),
    "invalid-event": Kind(422, "An event is invalid"),
    "dead-letter": Kind(422, "The event was recorded, but the projector refused it"),
    "rate-limited": Kind(429, "Asked too often"),
    "budget-exceeded": Kind(429, "A limit on tokens, cost or attempts is reached"),
    "too-many-at-once": Kind(429, "Too many requests at the same time"),
    "headers-too-large": Kind(431, "The headers are too large"),
    INTERNAL: Kind(500, "An error of ours"),
    "unreadable-ruling": Kind(500, "The last ruling is unreadable"),
    "unavailable": Kind(503, "Not available now"),
    "circuit-open": Kind(503, "No dependency takes calls now"),
    "no-space": Kind(503, "There is no space to record it"),
    "not-proven": Kind(503, "The event was recorded, but the asked level cannot be promised"),
    "not-in-time": Kind(504, "Not reached in time"),
}
"""By the last part of the type."""

ERRORS: tuple[tuple[type[Exception], str], ...] = (
    (NotAllowed, "not-allowed"),
    (TokenRefused, "token-refused"),
    (Unreachable, "unavailable"),
    (QueryFailed, "unavailable"),
    (QueryError, "invalid-parameter"),
    (IngestRefused, "invalid-event"),
    (InvalidEvent, "invalid-event"),
    (Superseded, "superseded"),
    (ControlError, "unreadable-ruling"),
    (DeadLettered, "dead-letter"),
    (AckTimeout, "not-in-time"),
    (AckNotProven, "not-proven"),
    (RecordRefused, "no-space"),
    (RecorderError, "unavailable"),
    (BudgetExceeded, "budget-exceeded"),
    (CircuitOpen, "circuit-open"),
    (DeadlineExceeded, "not-in-time"),
)
"""The first that fits; any other error is ours."""


class Problem(BaseModel):
    """A problem document of RFC 9457."""

    type: str = Field(description="about:blank, or the path of its description")
    title: str
    status: int
    detail: str = Field(description="what is wrong with this request, and what to do")
    instance: str | None = Field(default=None, description="by which our log names this occurrence")
    recorded: bool | None = Field(default=None, description="true where the event was recorded all the same")


def kind_of(error: Exception) -> str:
    """`internal` for what nobody foresaw."""
    if isinstance(error, RequestRefused):
        return error.problem
    return next((kind for errors, kind in ERRORS if isinstance(error, errors)), INTERNAL)


def document(kind: str, detail: str, *, instance: str | None = None, recorded: bool = False) -> dict[str, Any]:
    """The members of a problem of this kind."""
    found = {"type": f"{PATH}/{kind}", "title": KINDS[kind].title, "status": KINDS[kind].status, "detail": detail}
    return found | ({"instance": instance} if instance else {}) | ({"recorded": True} if recorded else {})
