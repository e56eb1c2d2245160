"""From messages to changes: decodes, folds, and puts aside what cannot be folded, for whichever store."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from relight.engine.log.chain import body_sha256
from relight.engine.log.links import Link, document_of, link_of
from relight.engine.log.reader import Message
from relight.events.base import Event
from relight.events.catalog import decode_message
from relight.events.envelope import Recorded
from relight.events.errors import Reason, Undecodable
from relight.projections.base import Projection
from relight.projections.catalog import projection_of
from relight.projections.tables import Tables

NO_PROJECTION = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that could not be folded, and why."""

    projection: str
    message: Message
    reason: Reason
    detail: str
    event_id: str | None = None
    publisher: str | None = None
    pseq: int | None = None


@dataclass(slots=True)
class Folded:
    """What messages mean: tables to join, links of the publishers' chains, dead letters.

    With `only`, to these projections alone, and without links: of a rebuild, which leaves heads as they are.
    """

    only: frozenset[Projection] | None = None
    tables: Tables = field(default_factory=Tables)
    links: list[Link] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)

    def fold(self, messages: Iterable[Message], *, refused: Undecodable | None = None) -> None:
        """Adds these messages; with `refused`, as dead letters that the store would not take."""
        for message in messages:
            try:
                event = decode_message(message.subject, message.body, message.timestamp_ms)
            except Undecodable as error:
                self._bury(message, error)
                continue
            except Exception as error:  # what a model did not foresee must not hold up the others
                self._bury(message, Undecodable(Reason.INVALID, repr(error)))
                continue
            projection = projection_of(event.type)
            if self.only is not None:
                if projection in self.only:
                    self._apply(message, event, projection, refused)
                continue
            # No other event is kept: thousands of them alive would cost the garbage collector a quarter of the fold.
            own = event.data if projection is None else None
            sha256 = body_sha256(message.body)
            self.links.append(Link(event.publisher, event.pseq, event.prev, sha256, message, own))
            if projection is not None:
                self._apply(message, event, projection, refused)

    def _apply(
        self, message: Message, event: Recorded[Event], projection: Projection, refused: Undecodable | None
    ) -> None:
        try:
            if refused is not None:
                raise refused
            self.tables.apply(projection, event)
        except Exception as error:  # whatever a handler raises must not hold up the others
            reason = error.reason if isinstance(error, Undecodable) else Reason.PROJECTION_FAILED
            self.dead_letters.append(
                DeadLetter(
                    projection=projection.name,
                    message=message,
                    reason=reason,
                    detail=error.detail if isinstance(error, Undecodable) else repr(error),
                    event_id=event.id,
                    publisher=event.publisher,
                    pseq=event.pseq,
                )
            )

    def _bury(self, message: Message, error: Undecodable) -> None:
        link = None if error.reason is Reason.SUBJECT_MISMATCH else link_of(message)
        if link is not None:
            self.links.append(link)
        self.dead_letters.append(
            DeadLetter(
                projection=NO_PROJECTION,
                message=message,
                reason=error.reason,
                detail=error.detail,
                event_id=_event_id(message),
                publisher=link.publisher if link else None,
                pseq=link.pseq if link else None,
            )
        )


def _event_id(message: Message) -> str | None:
    found = document_of(message).get("id")
    return found[:200].replace("\x00", "") if isinstance(found, str) and found.isprintable() else None
