"""What a sender is told when something cannot be done."""

import logging
from dataclasses import dataclass

import orjson

from relight.engine.errors import AckNotProven, AckTimeout, DeadLettered
from relight.engine.problems import INTERNAL, KINDS, document, kind_of

RECORDED = (AckNotProven, AckTimeout, DeadLettered)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """`recorded`: the event itself was taken."""

    kind: str
    detail: str
    recorded: bool = False

    @property
    def status(self) -> int:
        return KINDS[self.kind].status

    def as_json(self) -> bytes:
        return orjson.dumps(document(self.kind, self.detail, recorded=self.recorded))


def told(error: Exception) -> Told:
    """The edge: an error of ours keeps its sentence; any other is logged, and its sender learns no more than that."""
    kind = kind_of(error)
    if kind == INTERNAL:
        log.error("a message could not be handled", exc_info=error, extra={"action": "message_failed"})
        return Told(kind=kind, detail="it is not your message's fault: the service's log says more")
    return Told(kind=kind, detail=str(error), recorded=isinstance(error, RECORDED))
