"""CloudEvents 1.0: the documents in a body and its headers, structured, in batches or in binary mode."""

import re
from collections.abc import Iterable
from email.message import Message
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson

from relight.engine.errors import RequestRefused

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
BINARY = "application/json"
PREFIX = "ce-"
MEDIA_TYPES = (STRUCTURED, BATCH, BINARY)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


def documents(
    content_type: str | None, headers: Iterable[tuple[str, str]], body: bytes, *, untyped: bool = False
) -> tuple[list[Any], bool]:
    """The documents, and whether they came as a batch.

    `untyped`: JSON that says no more of itself is an event, as where messages have no headers.
    Raises `RequestRefused` for a content type that is none of these, and for what is no JSON.
    """
    attributes = [(name.lower(), value) for name, value in headers if name.lower().startswith(PREFIX)]
    match media_type(content_type):
        case "application/cloudevents+json":
            return [_json(body)], False
        case "application/cloudevents-batch+json":
            found = _json(body)
            if not isinstance(found, list):
                raise RequestRefused("malformed", "a batch is a JSON array of events: send one event as " + STRUCTURED)
            return found, True
        case "application/json" | "" as said if attributes and (said or untyped):
            return [_binary(attributes, body)], False
        case "application/json" | "" if untyped:
            return [_json(body)], False
        case "application/json":
            raise RequestRefused(
                "wrong-content-type", f"this is JSON without ce- headers: send them (binary mode), or {STRUCTURED}"
            )
        case said:
            raise RequestRefused(
                "wrong-content-type",
                f"{said[:80]!r} is not taken: events are sent as {', '.join(MEDIA_TYPES[:2])} or {BINARY}",
            )


def media_type(content_type: str | None) -> str:
    """The type without its parameters. Raises `RequestRefused` for a charset that is not UTF-8."""
    said = Message()
    said["content-type"] = content_type or ""
    charset = said.get_content_charset("utf-8")
    if charset not in ("utf-8", "us-ascii"):
        raise RequestRefused("wrong-content-type", "JSON is sent in UTF-8: leave the charset away")
    return said.get_content_type() if content_type else ""


def _binary(attributes: Iterable[tuple[str, str]], body: bytes) -> dict[str, object]:
    """Attributes, each once, percent-decoded (HTTP protocol binding, section 3.1.3.2); the body is the data."""
    found: dict[str, object] = {}
    for header, value in attributes:
        name = header.removeprefix(PREFIX)
        if name in found:
            raise RequestRefused("malformed", f"ce-{name[:80]} is given twice: give it once")
        found[name] = _decoded(name, value)
    if "data" in found:
        raise RequestRefused("malformed", "ce-data: in binary mode the body is the data")
    version = found.get("dataversion")
    if isinstance(version, str) and version.isascii() and version.isdecimal() and len(version) <= 9:
        found["dataversion"] = int(version)  # an integer attribute, which a header can only give as text
    if body:
        found["data"] = _json(body)
    return found


def _decoded(name: str, text: str) -> str:
    if (quoted := _QUOTED.fullmatch(text)) is not None:
        text = re.sub(r"\\(.)", r"\1", quoted[1])
    try:
        if not text.isascii() or _PERCENT.search(text):
            raise ValueError
        return unquote_to_bytes(text).decode()
    except ValueError:
        raise RequestRefused("malformed", f"ce-{name[:80]}: percent-encode what is not ASCII, as UTF-8") from None


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestRefused("malformed", f"the body is no JSON ({error}): send it again whole") from None
