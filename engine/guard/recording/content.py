"""What is recorded of prompts and answers: nothing, a digest, or a digest and the bytes, after redaction."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import orjson
from pydantic import JsonValue

from relight.engine.guard.facts import Attempt, Call
from relight.engine.guard.recording.assembling import whole
from relight.engine.recorder.items import Kept
from relight.engine.settings import ContentPolicy
from relight.events.values import Content

Redact = Callable[[str, JsonValue], JsonValue]
"""Gets `request` or `response` and its JSON, which it may change; returns what may be recorded of it."""
REQUEST, RESPONSE = "request", "response"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Digest:
    """What an event says of a content, and the bytes to keep if they are to be kept.

    `dropped`: they were to be kept, but nobody has them any more.
    """

    content: Content | None
    kept: Kept | None = None
    dropped: bool = False


NOTHING = Digest(None)


class Contents:
    """Applies one policy; where there are hooks, the digest too is of what they left."""

    def __init__(self, policy: ContentPolicy, redact: Sequence[Redact] = ()) -> None:
        self.policy = policy
        self._redact = tuple(redact)
        self.refused = 0
        """Contents of which nothing was recorded, since a hook failed or they could not be read."""

    @property
    def needs_bytes(self) -> bool:
        """Whether something is missing where only the digest of a body is there: its bytes, or what hooks left."""
        return self.policy is ContentPolicy.FULL or (self.policy is ContentPolicy.DIGEST and bool(self._redact))

    def of_request(self, call: Call) -> Digest | None:
        """Of the canonical JSON: keys in order, no spaces."""
        if self.policy is ContentPolicy.NONE or call.body is None:
            return None
        if call.let_go:
            return self._dropped(call.request)
        try:
            canonical = _canonical(call.body)
            if self._redact:
                canonical = self._redacted(REQUEST, orjson.loads(canonical))
        except Exception as error:  # a hook is anybody's code
            self._refuse(call.decision, REQUEST, error)
            return None
        return self._digest(canonical)

    def digest_of(self, body: Mapping[str, object]) -> Content | None:
        """Of a request that is to be let go, on the caller's own time; hooks may take long, and are not asked."""
        if self._redact or self.policy is ContentPolicy.NONE:
            return None
        try:
            return self._digest(_canonical(body)).content
        except (TypeError, ValueError):  # nor could it be read later
            return None

    def of_response(self, decision: str, attempt: Attempt) -> Digest | None:
        """Of the bytes as they came, or of what hooks left of the message that they are.

        What a failed attempt brought is never kept: servers quote in errors what they were sent, keys among it.
        """
        if self.policy is ContentPolicy.NONE:
            return None
        if attempt.failure is not None and self._redact:
            return None
        if attempt.body is None:
            # Nobody has the bytes of a long stream, or of what was let go; what hooks would leave is not known.
            if attempt.body_sha256 is None or attempt.body_bytes is None:
                return None
            content = Content(sha256=attempt.body_sha256, size_bytes=attempt.body_bytes)
            return self._dropped(content) if attempt.failure is None else Digest(content)
        try:
            body = attempt.body
            if self._redact:
                body = self._redacted(RESPONSE, whole(body))
        except Exception as error:  # a hook is anybody's code
            self._refuse(decision, RESPONSE, error)
            return None
        return self._digest(body, keeps=attempt.failure is None)

    def _redacted(self, kind: str, document: JsonValue) -> bytes:
        for hook in self._redact:
            document = hook(kind, document)
            if document is None:
                raise TypeError
        return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)

    def _digest(self, body: bytes, *, keeps: bool = True) -> Digest:
        sha256 = hashlib.sha256(body).hexdigest()
        kept = Kept(sha256, body) if keeps and self.policy is ContentPolicy.FULL else None
        return Digest(Content(sha256=sha256, size_bytes=len(body)), kept)

    def _dropped(self, content: Content | None) -> Digest:
        return Digest(None if self._redact else content, dropped=self.needs_bytes)

    def _refuse(self, decision: str, kind: str, error: Exception) -> None:
        self.refused += 1
        # Not what it says: a hook's error may quote what it was to hide.
        log.warning(
            "the %s of decision %s is not recorded: it could not be %s (%s)",
            kind,
            decision,
            "redacted" if self._redact else "read",
            type(error).__qualname__,
            extra={"action": "content_refused"},
        )


def _canonical(body: Mapping[str, object]) -> bytes:
    try:
        return orjson.dumps(body, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    except TypeError:  # what only the slower encoder takes: long integers, lone surrogates
        return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
