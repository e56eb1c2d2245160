"""Splits Amazon's event stream, in which Bedrock wraps the events of a message, into the same frames."""

import binascii
import struct
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence

import orjson

from relight.engine.guard.streams.frames import Frame, FramesBroken

_NOT = "the bytes are no vnd.amazon.eventstream"
_PRELUDE = struct.Struct(">III")
"""Length of the message, length of its headers, and the prelude's CRC32."""
_CRC_BYTES = 4
_MOST_BYTES = 24 * 1024 * 1024
"""Of a message: botocore's limit."""
_STRING = 7
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of the values of the other header types, but for 6, which has a length as strings have."""


def _begins(event: bytes) -> bytes:
    """Base64 of whole groups of three bytes, so that it does not depend on what follows."""
    return b'{"bytes":"' + b64encode(event[: len(event) // 3 * 3])


_PLAIN = tuple(
    _begins(event)
    for event in (b'{"type":"content_block_delta"', b'{"type":"content_block_start"', b'{"type":"content_block_stop",')
)


class EventStreamFrames:
    """Messages of vnd.amazon.eventstream: each payload is `{"bytes": base64 of an event's JSON}`, or an exception."""

    telling = b""  # of a binary prelude nothing can be said
    lots = 0

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes, *, skip: bool = False) -> Sequence[Frame]:
        buffer = self._buffer
        buffer += chunk
        frames: list[Frame] = []
        at = 0
        while len(buffer) - at >= _PRELUDE.size:
            length, headers_length, crc = _PRELUDE.unpack_from(buffer, at)
            head = at + _PRELUDE.size
            if binascii.crc32(buffer[at : at + 8]) != crc or not _fits(length, headers_length):
                raise FramesBroken(f"{_NOT}: a prelude's checksum or length is wrong", frames)
            if len(buffer) - at < length:
                break
            payload = bytes(buffer[head + headers_length : at + length - _CRC_BYTES])
            if not (skip and payload.startswith(_PLAIN)):
                try:
                    headers = _headers(bytes(buffer[head : head + headers_length]))
                except (IndexError, KeyError, UnicodeDecodeError) as error:
                    raise FramesBroken(f"{_NOT}: the headers of a message cannot be read", frames) from error
                if (frame := _frame(headers, payload)) is not None:
                    frames.append(frame)
            at += length
        del buffer[:at]
        return frames

    def unreadable(self, chunk: bytes) -> bool:
        return False  # base64 of what the SDK reads or passes over


def _fits(length: int, headers_length: int) -> bool:
    return _PRELUDE.size + headers_length + _CRC_BYTES <= length <= _MOST_BYTES


def _headers(raw: bytes) -> Mapping[str, str]:
    """Those whose value is text, which all are that we ask for."""
    headers, at = {}, 0
    while at < len(raw):
        name = raw[at + 1 : at + 1 + raw[at]].decode()
        at += 1 + raw[at]
        kind = raw[at]
        at += 1
        if kind in (6, _STRING):
            length = int.from_bytes(raw[at : at + 2], "big")
            at += 2
            if kind == _STRING:
                headers[name] = raw[at : at + length].decode()
            at += length
        else:
            at += _SIZES[kind]
    return headers


def _frame(headers: Mapping[str, str], payload: bytes) -> Frame | None:
    if headers.get(":message-type", "event") != "event":
        kind = headers.get(":exception-type") or headers.get(":error-code") or "unknown"
        return Frame("error", _error(kind, headers.get(":error-message"), payload))
    try:
        wrapped = orjson.loads(payload)
        data = b64decode(wrapped["bytes"])
        event = orjson.loads(data)["type"]
    except (ValueError, KeyError, TypeError):
        return None  # the SDK passes over what is no event of a message, too
    return Frame(event, data) if isinstance(event, str) else None


def _error(kind: str, message: str | None, payload: bytes) -> bytes:
    """The data of the `error` event that a first-party stream would have sent."""
    if message is None:
        try:
            told = orjson.loads(payload)
            message = str(told.get("message", "")) if isinstance(told, dict) else ""
        except ValueError:
            message = ""
    return orjson.dumps({"type": "error", "error": {"type": kind, "message": message}})
