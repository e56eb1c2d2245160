"""Cursors: opaque text that says where a page ended, of one query with one tenant and one set of arguments."""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime

import orjson

from relight.engine.errors import RequestRefused
from relight.engine.tables.paging import KeyColumn, KeyValue
from relight.engine.tables.queries import Argument

MAX_LENGTH = 4_096


def fingerprint(query: str, order: str, tenant: str, arguments: Mapping[str, Argument]) -> str:
    """What a cursor belongs to.

    It is no secret and needs none: a forged cursor can only say where to go on in rows that its bearer may read. It
    keeps a cursor from being used for anything else, and garbage from being read as one.
    """
    said = orjson.dumps([query, order, tenant, sorted(arguments.items())])
    return hashlib.sha256(said).hexdigest()[:16]


def encode(belongs_to: str, values: Sequence[KeyValue]) -> str:
    # datetime.isoformat, not orjson's own form: infinity comes back from it as the driver's infinity.
    plain = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    body = orjson.dumps(plain)
    return base64.urlsafe_b64encode(_check(belongs_to, body) + body).decode().rstrip("=")


def decode(belongs_to: str, text: str, columns: Sequence[KeyColumn]) -> tuple[KeyValue, ...]:
    """Raises `RequestRefused` for what is no cursor of this query, tenant and arguments."""
    try:
        if len(text) > MAX_LENGTH or not text.isascii():
            raise ValueError
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        said, body = raw[:16], raw[16:]
        if said != _check(belongs_to, body):
            raise ValueError
        values = orjson.loads(body)
        if not isinstance(values, list) or len(values) != len(columns):
            raise ValueError
        return tuple(_value(value, column) for value, column in zip(values, columns, strict=True))
    except (ValueError, binascii.Error):
        raise RequestRefused(
            "invalid-parameter",
            "cursor: none of this query with this tenant and these arguments: ask without it, and follow `next`",
        ) from None


def _check(belongs_to: str, body: bytes) -> bytes:
    return hashlib.sha256(belongs_to.encode() + body).digest()[:16]


def _value(value: object, column: KeyColumn) -> KeyValue:
    if value is None and column.nullable:
        return None
    if column.type is datetime and isinstance(value, str):
        return datetime.fromisoformat(value)
    if isinstance(value, column.type) and not isinstance(value, bool) and isinstance(value, str | int | float):
        return value
    raise ValueError
