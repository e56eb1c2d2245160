"""CloudEvents in a NATS message, after their NATS protocol binding: structured and binary mode, and batches."""

from collections.abc import Mapping
from urllib.parse import unquote

import orjson

from relight.engine.errors import MessageRefused

MAX_BODY_BYTES = 1 << 20
"""NATS' own default; larger ones are refused even where its max_payload lets them through."""
MAX_ATTRIBUTE = 2_000
STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
JSON = "application/json"
PREFIX = "ce-"


def documents_of(headers: Mapping[str, str], body: bytes) -> list[object]:
    """The CloudEvents of a message as structured mode writes them, unchecked. Raises `MessageRefused`."""
    if len(body) > MAX_BODY_BYTES:
        raise MessageRefused(
            "too-large",
            413,
            f"the body has {len(body)} bytes, of {MAX_BODY_BYTES}: send fewer, or put bulk into content",
        )
    named = {name.lower(): value for name, value in headers.items()}
    said = named.get("content-type", "")
    media_type, _, parameters = said.partition(";")
    media_type = media_type.strip().lower()
    if "charset" in parameters.lower() and "utf-8" not in parameters.lower():
        raise MessageRefused("wrong-content-type", 415, "the charset of JSON is UTF-8: send it so")
    if media_type == STRUCTURED:
        return [_json(body)]
    if media_type == BATCH:
        batch = _json(body)
        if not isinstance(batch, list):
            raise MessageRefused("malformed", 400, "a batch is a JSON array of events")
        return batch
    binary = {name.removeprefix(PREFIX): value for name, value in named.items() if name.startswith(PREFIX)}
    if media_type in ("", JSON):
        return [_binary(binary, body)] if binary else [_json(body)]
    raise MessageRefused(
        "wrong-content-type",
        415,
        f"{media_type[:80]!r} is not taken: send {STRUCTURED}, {BATCH}, or {PREFIX} headers with JSON as data",
    )


def _binary(attributes: Mapping[str, str], body: bytes) -> dict[str, object]:
    document: dict[str, object] = {name: _attribute(name, value) for name, value in attributes.items()}
    if "data" in document:
        raise MessageRefused("malformed", 400, f"{PREFIX}data: in binary mode the body is the data")
    if body:
        document["data"] = _json(body)
    return document


def _attribute(name: str, value: str) -> str:
    """Percent-decoded, as the HTTP binding, to which that of NATS refers, has it encoded."""
    try:
        decoded = unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise MessageRefused("malformed", 400, f"{PREFIX}{name[:80]}: percent-encoded UTF-8 is due") from None
    if len(decoded) > MAX_ATTRIBUTE:
        raise MessageRefused("malformed", 400, f"{PREFIX}{name[:80]}: {len(decoded)} characters, of {MAX_ATTRIBUTE}")
    return decoded


def _json(body: bytes) -> object:
    try:
        parsed: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MessageRefused("malformed", 400, f"the body is no JSON in UTF-8 ({error.msg})") from None
    return parsed
