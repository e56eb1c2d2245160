"""How one event of a stream stands on the wire: as a Server-Sent Event, or as a message of AWS' event stream.

The latter as Smithy specifies `application/vnd.amazon.eventstream`: a prelude of total and header length with its own
CRC-32, headers, payload, and a CRC-32 of all of that; numbers are big-endian.
"""

import base64
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import orjson

from relight.engine.fake.asked import Api
from relight.engine.fake.problems import aws_exception, error

SSE_TYPE = "text/event-stream; charset=utf-8"
AWS_TYPE = "application/vnd.amazon.eventstream"
_STRING = 7
"""The type of a header's value: UTF-8 with a length of two bytes before it."""
_CRC_BYTES = 4
_STREAM_EXCEPTIONS = (
    "InternalServerException",
    "ModelStreamErrorException",
    "ModelTimeoutException",
    "ServiceUnavailableException",
    "ThrottlingException",
    "ValidationException",
)
"""Those that a stream can carry."""


def content_type(api: Api) -> str:
    return AWS_TYPE if api is Api.BEDROCK else SSE_TYPE


def framed(api: Api, event: Mapping[str, Any]) -> bytes:
    return raw_frame(api, event["type"], orjson.dumps(event))


def raw_frame(api: Api, event_type: str, data: bytes) -> bytes:
    """`data` need be no JSON."""
    if api is not Api.BEDROCK:
        return b"event: %b\ndata: %b\n\n" % (event_type.encode(), data)
    payload = orjson.dumps({"bytes": base64.b64encode(data).decode()})
    return aws_message({":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}, payload)


def error_frame(api: Api, error_type: str, message: str, request_id: str) -> bytes:
    if api is not Api.BEDROCK:
        return framed(api, error(error_type, message, request_id))
    name = aws_exception(error_type)
    name = name if name in _STREAM_EXCEPTIONS else "InternalServerException"
    headers = {
        ":exception-type": name[0].lower() + name[1:],
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return aws_message(headers, orjson.dumps({"message": message}))


def aws_message(headers: Mapping[str, str], payload: bytes) -> bytes:
    encoded = b"".join(_header(name.encode(), value.encode()) for name, value in headers.items())
    lengths = struct.pack(">II", 0, len(encoded))
    total = len(lengths) + _CRC_BYTES + len(encoded) + len(payload) + _CRC_BYTES
    lengths = struct.pack(">II", total, len(encoded))
    prelude = lengths + struct.pack(">I", zlib.crc32(lengths))
    whole = prelude + encoded + payload
    return whole + struct.pack(">I", zlib.crc32(whole))


def _header(name: bytes, value: bytes) -> bytes:
    return struct.pack(">B", len(name)) + name + struct.pack(">BH", _STRING, len(value)) + value
