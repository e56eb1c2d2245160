"""Puts a streamed answer together again, as the message that an answer in one piece would have been."""

import orjson
from pydantic import JsonValue

from relight.engine.guard.recording.answers import read_json
from relight.engine.guard.streams.eventstream import EventStreamFrames
from relight.engine.guard.streams.frames import Frames
from relight.engine.guard.streams.sse import SseFrames

_TEXTS = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "signature_delta": ("signature", "signature"),
    "compaction_delta": ("content", "content"),
}
"""What a delta adds to a block: the field of the block, and that of the delta."""

Json = dict[str, JsonValue]


class NotAssembled(ValueError):
    """The bytes are no message, or hold a part of one that is not known here."""


def whole(body: bytes) -> JsonValue:
    """The JSON of a body, streamed or in one piece. Raises `ValueError` for what is neither.

    A hook that redacts has to see what the caller saw: words that a stream cut in two, it would not find.
    """
    if (document := read_json(body)) is not None:
        return document
    frames: Frames = EventStreamFrames() if body[:1] == b"\0" else SseFrames()
    message: Json | None = None
    partial_json: dict[int, str] = {}
    for frame in frames.feed(body):
        event = orjson.loads(frame.data)
        if not isinstance(event, dict):
            raise NotAssembled
        match event.get("type"):
            case "message_start":
                message = dict(_object(event.get("message")))
                message["content"] = []
            case "content_block_start":
                _blocks(message).append(dict(_object(event.get("content_block"))))
            case "content_block_delta":
                _add(_blocks(message), event, partial_json)
            case "message_delta" if message is not None:
                message |= _object(event.get("delta"))
                message["usage"] = {**_object(message.get("usage", {})), **_object(event.get("usage", {}))}
            case "ping" | "content_block_stop" | "message_stop":
                pass
            case _:  # an error among them: it may quote what was asked
                raise NotAssembled
    if message is None:
        raise NotAssembled
    for index, text in partial_json.items():
        _object(_blocks(message)[index])["input"] = read_json(text.encode()) if text else {}
    return message


def _add(blocks: list[JsonValue], event: Json, partial_json: dict[int, str]) -> None:
    index, delta = event.get("index"), _object(event.get("delta"))
    if not isinstance(index, int) or not 0 <= index < len(blocks):
        raise NotAssembled
    block, kind = _object(blocks[index]), delta.get("type")
    if kind == "input_json_delta":
        partial_json[index] = partial_json.get(index, "") + _text(delta.get("partial_json"))
    elif kind == "citations_delta":
        cited = block.get("citations")
        block["citations"] = [*(cited if isinstance(cited, list) else ()), delta.get("citation")]
    elif isinstance(kind, str) and kind in _TEXTS:
        field, added = _TEXTS[kind]
        block[field] = _text(block.get(field) or "") + _text(delta.get(added) or "")
    else:
        raise NotAssembled


def _blocks(message: Json | None) -> list[JsonValue]:
    blocks = None if message is None else message["content"]
    if not isinstance(blocks, list):
        raise NotAssembled
    return blocks


def _object(value: JsonValue) -> Json:
    if not isinstance(value, dict):
        raise NotAssembled
    return value


def _text(value: JsonValue) -> str:
    if not isinstance(value, str):
        raise NotAssembled
    return value
