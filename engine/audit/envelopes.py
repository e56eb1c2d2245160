"""What a message says of its place in a chain: read strictly where it is whole, pieced together where it is damaged."""

import re
from collections.abc import Container
from typing import NamedTuple, TypeGuard
from urllib.parse import unquote

import orjson

from relight.engine.log.chain import body_sha256
from relight.engine.log.reader import Message
from relight.events.envelope import GENESIS
from relight.events.subjects import CONTROLS, control_subject, observation_subject, source_of

HEALED_ID = re.compile(r"(.*)#h[0-9]{1,9}", re.DOTALL)
MAX_PUBLISHER = 1_500
NO_JSON = "its body is no JSON"
NO_EVENT = "its body is no event"
NO_ENVELOPE = "its envelope says no publisher, number or hash"
MISPLACED = "it stands on another subject than its body says"
MISNAMED = "its message id is not that of its event"
OTHER_SOURCE = "its publisher is not the one of its source"
UNREADABLE = frozenset({NO_JSON, NO_EVENT, NO_ENVELOPE})
NEVER_FOLDED = UNREADABLE | {MISPLACED}
"""Faults that make a message a dead letter: no table has anything of it."""
_HASH = re.compile(rb"(?=([0-9a-f]{64}))")
_PUBLISHER = re.compile(rb'"publisher" ?: ?"([^"\\]{1,1500})"')
_PREV = re.compile(rb'"prev" ?: ?[^ ]([^,]{64})')
_PSEQ = re.compile(rb'"pseq" ?: ?"?([0-9]{1,15})\b')
_SOURCE = re.compile(rb'"source" ?: ?"([^"\\]{1,4000})"')
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


class Place(NamedTuple):
    """Where a message belongs, as far as it says; `sha256` is its body's.

    `fault`: why it is certainly not as it was recorded, whatever its hash; empty where nothing speaks against it.
    """

    publisher: str | None
    pseq: int | None
    prev: str | None
    sha256: str
    healed: bool
    fault: str
    named: str = ""
    """The publisher by the event's source, where it is one of ours; read of first events only."""


def place_of(message: Message, known: Container[str] = ()) -> Place:
    """`known`: publishers that somebody vouches for, to tell a damaged name by."""
    sha256 = body_sha256(message.body)
    healed = "#h" in message.message_id and HEALED_ID.fullmatch(message.message_id) is not None
    try:
        document = orjson.loads(message.body)
    except ValueError:
        return _pieced(message, sha256, healed, NO_JSON, known)
    if not isinstance(document, dict):
        return _pieced(message, sha256, healed, NO_EVENT, known)
    publisher, pseq, prev = document.get("publisher"), _number(document.get("pseq")), document.get("prev")
    if pseq is None or not isinstance(prev, str) or not _is_name(publisher):
        return _pieced(message, sha256, healed, NO_ENVELOPE, known)
    fault = _misplaced(message.subject, publisher, document) or _misnamed(message.message_id, document)
    if fault and CONTROLS in (publisher[:3], message.subject[:3]):
        publisher = _ruled_by(message.subject, publisher, document)
    # A ruling's source is the process that appended it, its publisher the subject.
    ruled = publisher.startswith(f"{CONTROLS}.")
    named = named_by_source(document.get("source")) if prev == GENESIS and not ruled else ""
    if named in known and publisher not in known and not fault:
        publisher, fault = named, OTHER_SOURCE
    return Place(publisher, pseq, prev, sha256, healed, fault, named)


def hashes_in(body: bytes) -> list[str]:
    """Everything in it that could be the hash of an event before, whatever else is damaged."""
    return [found.decode() for found in _HASH.findall(body)]


def named_by_source(source: object) -> str:
    """The publisher in an event's `source`, where it is one of ours."""
    if not isinstance(source, str) or not source.startswith("relight://"):
        return ""
    region, _, publisher = source.removeprefix("relight://").partition("/")
    return publisher if source_of(unquote(region), publisher) == source else ""


def _number(said: object) -> int | None:
    if isinstance(said, bool) or not isinstance(said, str | int):
        return None
    digits = str(said)
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 18 and int(digits) > 0 else None


def _is_name(said: object) -> TypeGuard[str]:
    return isinstance(said, str) and 0 < len(said) <= MAX_PUBLISHER and _UNPRINTABLE.search(said) is None


def _misplaced(subject: str, publisher: str, document: dict[str, object]) -> str:
    """One subject follows from a body: a control event's publisher, an observation's region, type and tenant."""
    if publisher.startswith(f"{CONTROLS}.") or subject.startswith(f"{CONTROLS}."):
        belongs: str | None = publisher
    else:
        match document:
            case {"region": str(region), "type": str(type_), "tenant": str(tenant)}:
                belongs = observation_subject(region, type_, tenant)
            case _:
                belongs = None
    return "" if subject == belongs else MISPLACED


def _misnamed(message_id: str, document: dict[str, object]) -> str:
    """Publishers give the event's id, and healed copies `<id>#h<n>`."""
    event_id = document.get("id")
    if not message_id or message_id == event_id:
        return ""
    healed = HEALED_ID.fullmatch(message_id)
    return "" if healed is not None and healed[1] == event_id else MISNAMED


def _ruled_by(subject: str, publisher: str, document: dict[str, object]) -> str:
    """Of subject, publisher, and what follows from the body, the two that agree are right."""
    match document:
        case {"policy": str(policy), "tenant": str(tenant), "subject": str(entity)}:
            if control_subject(policy, tenant, entity) == subject:
                return subject
    return publisher


def _pieced(message: Message, sha256: str, healed: bool, fault: str, known: Container[str]) -> Place:
    publisher, pseq, source = (search(message.body) for search in (_PUBLISHER.search, _PSEQ.search, _SOURCE.search))
    named = named_by_source(source[1].decode(errors="replace")) if source else ""
    names = [publisher[1].decode(errors="replace")] if publisher else []
    names += [message.subject] if message.subject.startswith(f"{CONTROLS}.") else [named] if named else []
    name = next((name for name in names if name in known), names[0] if names else None)
    hashes = hashes_in(message.body)
    said = _PREV.search(message.body)
    prev = said[1].decode("latin-1") if said else hashes[0] if hashes else None
    return Place(name, int(pseq[1]) or None if pseq else None, prev, sha256, healed, fault, named)


def token_of_tenant(message: Message) -> str:
    """The tenant in a subject, as it is escaped there; empty where there is none."""
    tokens = message.subject.split(".")
    match tokens:
        case ["ev", _, _, tenant, *_] | ["ctl", _, tenant, *_]:
            return tenant
    return ""
