"""Reads what an answer says of itself, wherever it came from."""

from collections.abc import Mapping

import orjson
from pydantic import JsonValue

from relight.engine.guard.facts import Answer, Usage


def read_json(body: bytes | None) -> JsonValue:
    """None for what is no JSON."""
    if not body:
        return None
    try:
        document: JsonValue = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return document


def read_answer(document: JsonValue) -> Answer | None:
    """Of a message; None for anything else, an error for one."""
    if not isinstance(document, dict) or document.get("type") != "message":
        return None
    answer = Answer(
        response_id=_text(document.get("id")),
        model=_text(document.get("model")),
        stop_reason=_text(document.get("stop_reason")),
    )
    read_usage(document.get("usage"), answer.usage)
    return answer


def read_usage(document: object, usage: Usage) -> None:
    """Takes over what the document says, and leaves the rest as it is: a stream says it bit by bit."""
    if not isinstance(document, Mapping):
        return
    for name, key in _COUNTS.items():
        if (count := _count(document.get(key))) is not None:
            setattr(usage, name, count)
    for name in ("service_tier", "speed", "inference_geo"):
        if (text := _text(document.get(name))) is not None:
            setattr(usage, name, text)
    if isinstance(written := document.get("cache_creation"), dict):
        usage.cache_write_1h_tokens = _count(written.get("ephemeral_1h_input_tokens"))
    if isinstance(tools := document.get("server_tool_use"), dict):
        usage.web_searches = _count(tools.get("web_search_requests"))


_COUNTS = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_write_tokens": "cache_creation_input_tokens",
    "cache_read_tokens": "cache_read_input_tokens",
}


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
