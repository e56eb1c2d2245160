"""What a sender is told when something cannot be done: a problem document in the shape of RFC 9457."""

import logging
from dataclasses import dataclass

import orjson

from relight.engine.errors import (
    AckNotProven,
    AckTimeout,
    ControlError,
    DeadLettered,
    IngestRefused,
    MessageRefused,
    QueryError,
    RecordRefused,
    RelightError,
    Superseded,
    Unreachable,
)
from relight.events.errors import InvalidEvent

CONTENT_TYPE = "application/problem+json"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """`kind` names it for programs, `status` is HTTP's code for the like; `recorded`: the event itself was taken."""

    kind: str
    status: int
    title: str
    detail: str
    recorded: bool = False

    def as_json(self) -> bytes:
        document: dict[str, object] = {
            "type": f"urn:relight:problem:{self.kind}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.recorded:
            document["recorded"] = True
        return orjson.dumps(document)


def problem_of(error: Exception) -> Problem:
    """The edge: an error of ours keeps its sentence; any other is logged, and its sender learns no more than that."""
    detail = str(error)
    match error:
        case MessageRefused():
            return Problem(kind=error.kind, status=error.status, title="The message is refused.", detail=detail)
        case IngestRefused() | InvalidEvent():
            return Problem(kind="invalid-event", status=400, title="The event cannot be taken.", detail=detail)
        case QueryError():
            return Problem(kind="invalid-query", status=400, title="The query cannot be asked.", detail=detail)
        case Superseded():
            return Problem(kind="superseded", status=409, title="Another ruling came first.", detail=detail)
        case DeadLettered():
            title = "Recorded, but it cannot be projected."
            return Problem(kind="dead-letter", status=422, title=title, detail=detail, recorded=True)
        case RecordRefused():
            return Problem(kind="no-space", status=503, title="There is no space to record it.", detail=detail)
        case AckNotProven():
            title = "Recorded, but the asked level cannot be promised."
            return Problem(kind="not-proven", status=503, title=title, detail=detail, recorded=True)
        case AckTimeout():
            title = "The asked level was not reached in time."
            return Problem(kind="not-in-time", status=504, title=title, detail=detail, recorded=True)
        case Unreachable():
            return Problem(kind="unreachable", status=503, title="A server does not answer.", detail=detail)
        case ControlError():
            return Problem(kind="unreadable-ruling", status=500, title="The last ruling is unreadable.", detail=detail)
        case RelightError():
            return Problem(kind="not-now", status=503, title="It cannot be done now.", detail=detail)
        case _:
            log.error("a message could not be handled", exc_info=error, extra={"action": "message_failed"})
            return Problem(
                kind="internal", status=500, title="Something went wrong here.", detail="The service's log says more."
            )
