"""Reads content back by its digest."""

import hashlib

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError, ObjectDeletedError, ObjectNotFoundError

from relight.engine.errors import ContentError
from relight.engine.log.topology import content_bucket
from relight.events.values import Content


async def fetch_content(js: JetStreamContext, tenant: str, content: Content) -> bytes:
    """The bytes whose SHA-256 is `content.sha256`. Raises `ContentError` when they are missing or others."""
    name = f"{tenant}/{content.sha256}"
    try:
        found = await (await content_bucket(js)).get(name)
    except (ObjectNotFoundError, ObjectDeletedError, NotFoundError):
        raise ContentError(f"content {name} is not in the store: it was erased, or is still in its spool") from None
    body = found.data or b""
    if hashlib.sha256(body).hexdigest() != content.sha256:
        raise ContentError(f"content {name} does not match its digest: the store holds other bytes; do not use them")
    return body
