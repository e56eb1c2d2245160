"""What the fake does with one request."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, field_validator


class Fault(StrEnum):
    """How an answer goes wrong, beyond its status.

    `after_deltas` content deltas come before it in a stream, `after_bytes` bytes in a plain body.
    """

    RESET_BEFORE_HEADERS = "reset_before_headers"
    """RST, as from a proxy or a machine that died"""
    RESET_AFTER_HEADERS = "reset_after_headers"
    RESET_IN_BODY = "reset_in_body"
    CLOSED_BEFORE_HEADERS = "closed_before_headers"
    """an orderly end, but no answer"""
    TRUNCATED = "truncated"
    """an orderly end in the middle of the body"""
    ERROR_EVENT = "error_event"
    """in the stream; a plain answer gets the status of `error_type` instead"""
    NO_MESSAGE_STOP = "no_message_stop"
    """the stream ends in order, but too early; a plain answer is truncated"""
    MALFORMED_JSON = "malformed_json"
    WRONG_CONTENT_TYPE = "wrong_content_type"
    """a page of HTML, as from a proxy"""
    EMPTY_BODY = "empty_body"
    SLOW_HEADERS = "slow_headers"
    """a byte each `byte_delay_s`"""
    SLOW_BODY = "slow_body"
    SILENT = "silent"
    """takes the request and never answers"""


StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal"]
Seconds = Annotated[float, Field(ge=0, le=86_400)]
Tokens = Annotated[int, Field(ge=0, le=1_000_000)]


HeaderName = Annotated[str, StringConstraints(to_lower=True, pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]


def _header_value(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


HeaderValue = Annotated[str, BeforeValidator(_header_value), StringConstraints(pattern=r"^[\t\x20-\x7e]*$")]
FRAMING = ("content-length", "transfer-encoding")


class Step(BaseModel):
    """One answer; without anything it is a good one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Annotated[int, Field(ge=200, le=599)] = 200
    headers: Mapping[HeaderName, HeaderValue] = Field(default_factory=dict)
    """Beside the usual ones, or instead of them: `retry-after`, `retry-after-ms`, `x-should-retry`, `request-id`, …"""
    body: str | None = None
    """Sent as it is, instead of a message or an error."""
    error_type: str | None = None
    """Of the error, as `overloaded_error`; by default the one that belongs to the status, in a stream `api_error`."""
    error_message: str | None = None

    text: str | None = None
    """Of the answer; by default derived from the request, so that answers can be told apart."""
    stop_reason: StopReason | None = None
    input_tokens: Tokens | None = None
    """Instead of those counted."""
    output_tokens: Tokens | None = None
    """Instead of those counted; without `text`, the text is made so long."""
    cache_read_tokens: Tokens | None = None
    cache_write_tokens: Tokens | None = None

    fault: Fault | None = None
    after_deltas: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    after_bytes: Annotated[int, Field(ge=0)] | None = None
    """Half of the body by default."""
    delay_s: Seconds = 0.0
    """Before the headers."""
    chunk_delay_s: Seconds = 0.0
    """Before each event of a stream, before each eighth of a plain body."""
    byte_delay_s: Seconds = 0.05
    """Of `slow_headers` and `slow_body`."""

    times: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """So many requests in a row get it."""

    @field_validator("headers")
    @classmethod
    def _not_framing(cls, headers: Mapping[str, str]) -> Mapping[str, str]:
        for name in FRAMING:
            if name in headers:
                raise ValueError(f"{name} follows from the body: a fault as {Fault.TRUNCATED} makes it a lie")
        return headers
