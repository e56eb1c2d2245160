"""What is known of a guarded call, of its attempts, and of what they were sent to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from relight.engine.scope import Scope
from relight.events.values import Content


class Failure(StrEnum):
    """How an attempt or a call failed: the `error_class` of what is recorded."""

    RATE_LIMITED = "rate_limited"
    """429"""
    OVERLOADED = "overloaded"
    """529, in the status or inside a stream"""
    SERVER_ERROR = "server_error"
    """500 and above, or `api_error` inside a stream"""
    CONFLICT = "conflict"
    """409"""
    REQUEST_TIMEOUT = "request_timeout"
    """408: the server's"""
    TIMEOUT = "timeout"
    """of the client: connecting, reading, writing, or waiting for a connection"""
    NAME_RESOLUTION = "name_resolution"
    TLS = "tls"
    CONNECTION = "connection"
    """refused, reset, or closed before a whole answer was there"""
    TRUNCATED = "truncated"
    """a stream that ended without `message_stop`"""
    MALFORMED = "malformed_response"
    INVALID_REQUEST = "invalid_request"
    """400 and 422"""
    AUTHENTICATION = "authentication"
    """401"""
    PERMISSION = "permission"
    """403"""
    NOT_FOUND = "not_found"
    """404"""
    TOO_LARGE = "request_too_large"
    """413"""
    CLIENT_ERROR = "client_error"
    """any other 4xx"""
    DEADLINE = "deadline_exceeded"
    """the caller's"""
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"
    """the caller closed a stream before its end"""
    CIRCUIT_OPEN = "circuit_open"
    BUDGET = "budget_exceeded"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Dependency:
    """What a call depends on: a model of a provider in a region. Providers have OpenTelemetry's names."""

    provider: str
    region: str
    model: str

    @property
    def name(self) -> str:
        """The breaker's name, `anthropic/global/claude-opus-4-8`."""
        return f"{self.provider}/{self.region}/{self.model}"


@dataclass(slots=True)
class Usage:
    """Tokens of one answer; None where the answer does not say."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    """Of the tokens written, those for an hour."""
    web_searches: int | None = None
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None


@dataclass(slots=True)
class Answer:
    """What an answer says of itself."""

    response_id: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    usage: Usage = field(default_factory=Usage)


@dataclass(slots=True)
class Attempt:
    """One request on the wire. Times are Unix microseconds; `body` is what came back, as far as it was read."""

    number: int
    dependency: Dependency
    started_us: int
    waited_s: float = 0.0
    """Before it: by the retry policy, or for capacity."""
    ended_us: int | None = None
    first_token_us: int | None = None
    status: int | None = None
    failure: Failure | None = None
    request_id: str | None = None
    retry_after_s: float | None = None
    """What the server asked for."""
    fallback_reason: str | None = None
    """Why this is not the dependency that the caller named."""
    answer: Answer | None = None
    body: bytes | None = None
    body_sha256: str | None = None
    """Of a stream, which is hashed as it passes."""
    body_bytes: int | None = None


@dataclass(slots=True)
class Call:
    """One call of the caller's: `decision` names it. `body` is the request's JSON, which nobody may change."""

    decision: str
    operation: str
    """OpenTelemetry's: `chat`, or the last part of the path, as `count_tokens`."""
    dependency: Dependency
    scope: Scope
    started_us: int
    body: Mapping[str, Any] | None = None
    streams: bool = False
    client_max_retries: int | None = None
    """The client's own, where they are not off: attempts would multiply."""
    traceparent: str | None = None
    """Of the SDK's span of this call."""
    taken_id: str | None = None
    """The journal's own: the event that says it was taken."""
    attempts: int = 0
    ended_us: int | None = None
    first_token_us: int | None = None
    failure: Failure | None = None
    answer: Answer | None = None
    """Of the attempt that was handed out."""
    served_by: Dependency | None = None
    let_go: bool = False
    """`body` is only the hull of what was sent, and `request` its digest, if that is known."""
    request: Content | None = None
