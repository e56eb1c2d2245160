"""The events that a message is streamed as."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

PING: dict[str, Any] = {"type": "ping"}
_WORD = re.compile(r"\s*\S+\s*?(?=\s|$)|\s+$")
JSON_PIECES = 3


def events(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    usage = message["usage"]
    begun = {
        **message,
        "content": [],
        "stop_reason": None,
        "stop_details": None,
        "usage": {**usage, "output_tokens": 1},
    }
    yield {"type": "message_start", "message": begun}
    for index, block in enumerate(message["content"]):
        yield {"type": "content_block_start", "index": index, "content_block": _empty(block)}
        if index == 0:
            yield PING
        for delta in _deltas(block):
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ended = {name: message[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
    counted = {name: usage[name] for name in usage if name.endswith("_tokens")}
    yield {"type": "message_delta", "delta": ended, "usage": counted}
    yield {"type": "message_stop"}


def is_delta(event: Mapping[str, Any]) -> bool:
    return bool(event["type"] == "content_block_delta")


def _empty(block: Mapping[str, Any]) -> dict[str, Any]:
    match block["type"]:
        case "text":
            return {"type": "text", "text": ""}
        case "thinking":
            return {"type": "thinking", "thinking": "", "signature": ""}
        case _:
            return {**block, "input": {}}


def _deltas(block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    match block["type"]:
        case "text":
            for word in pieces(block["text"]):
                yield {"type": "text_delta", "text": word}
        case "thinking":
            for word in pieces(block["thinking"]):
                yield {"type": "thinking_delta", "thinking": word}
            yield {"type": "signature_delta", "signature": block["signature"]}
        case _:
            text = orjson.dumps(block["input"]).decode()
            size = -(-len(text) // JSON_PIECES)
            yield {"type": "input_json_delta", "partial_json": ""}
            for at in range(0, len(text), size):
                yield {"type": "input_json_delta", "partial_json": text[at : at + size]}


def pieces(text: str) -> list[str]:
    """Words with the space before them; joined they are the text again."""
    return _WORD.findall(text)
