"""Where a message stands in its publisher's chain, read from its envelope, whatever is wrong with the rest."""

from typing import NamedTuple

import orjson

from relight.engine.log.chain import body_sha256
from relight.engine.log.reader import Message
from relight.events.base import Event
from relight.events.catalog import event_types
from relight.events.subjects import CONTROLS, observation_subject


class Link(NamedTuple):
    """What an envelope says of its place in its publisher's chain; `own`: what a recorder says there about itself."""

    publisher: str
    pseq: int
    prev: str
    sha256: str
    message: Message
    own: Event | None


def document_of(message: Message) -> dict[str, object]:
    """The JSON object in the body; empty where there is none."""
    try:
        document = orjson.loads(message.body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def link_of(message: Message) -> Link | None:
    """None where the envelope says none, or the message stands where another's would: it is no link of that chain."""
    document = document_of(message)
    match document:
        case {"publisher": str(publisher), "pseq": str() | int() as pseq, "prev": str(prev)}:
            digits = str(pseq)
            if digits.isascii() and digits.isdecimal() and len(digits) < 16 and int(digits) > 0:
                readable = publisher.isprintable() and prev.isascii() and 0 < len(publisher.encode()) <= 1_500
                if readable and _is_in_place(message.subject, publisher, document):
                    return Link(publisher, int(digits), prev, body_sha256(message.body), message, None)
    return None


def _is_in_place(subject: str, publisher: str, document: dict[str, object]) -> bool:
    """A control event's publisher is the subject it stands on, and nobody else's is one."""
    if publisher.startswith(f"{CONTROLS}.") or subject.startswith(f"{CONTROLS}."):
        return publisher == subject
    match document:
        case {"region": str(region), "type": str(type_), "tenant": str(tenant)} if type_ in event_types():
            return subject == observation_subject(region, type_, tenant)
    return True  # what is unreadable besides cannot be held against it
