"""CloudEvents in a NATS message, after their NATS protocol binding."""

from collections.abc import Mapping

from relight.engine.cloudevents import documents
from relight.engine.errors import RequestRefused

MAX_BODY_BYTES = 1 << 20
"""NATS' own default; larger ones are refused even where its max_payload lets them through."""


def documents_of(headers: Mapping[str, str], body: bytes) -> list[object]:
    """The CloudEvents of a message as structured mode writes them, unchecked. Raises `RequestRefused`."""
    if len(body) > MAX_BODY_BYTES:
        detail = f"the body has {len(body)} bytes, of {MAX_BODY_BYTES}: send fewer, or put bulk into content"
        raise RequestRefused("too-large", detail)
    said = next((value for name, value in headers.items() if name.lower() == "content-type"), None)
    return documents(said, headers.items(), body, untyped=True)[0]
